"""Adapters on disk: read and checked, written, and what jobs may ask for.

Imports base, methods, contract and errors.
"""
