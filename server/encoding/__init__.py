"""Bases that answer in one forward pass: text and image classifiers, and embedders.

Imports adapters, base and errors.
"""
