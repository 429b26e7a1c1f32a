"""What answers hold, as types: mypy checks the builders by them, OpenAPI shows them.

Imports the registry's names of states and tasks, nothing else of ours. The lines under `Args:` in a
docstring become the descriptions of the fields.
"""
