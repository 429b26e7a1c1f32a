"""Calls of functions in an answer's text: the forms in which bases write them, and reading them.

Imports nothing of this package.
"""
