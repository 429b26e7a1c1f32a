"""What a base says in a chat: content and calls of functions.

Imports adapters_core.
"""
