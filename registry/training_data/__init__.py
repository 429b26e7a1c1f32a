"""What a training file must look like, checked line by line without a base. Pure.

May import adapters_core.tokens; nothing else of the registry.
"""
