"""Adapters from and to other formats and methods, and what a file does to its layers.

Imports all other rooms of this package.
"""
