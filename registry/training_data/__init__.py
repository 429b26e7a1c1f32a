"""What a training file must look like, checked line by line without a base. Pure.

May import adapters_core.reading; nothing else of the registry.
"""
