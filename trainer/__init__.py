"""The training worker, and the demo's base and texts.

May import registry and adapters_core.
"""
