"""A base: its spec, loading it, and what of it an adapter may change.

Imports contract, tokens and errors.
"""
