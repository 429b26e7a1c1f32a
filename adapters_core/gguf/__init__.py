"""Bases in GGUF files: converted once into a folder that transformers loads like any other.

Imports adapters_core.base, and `starting`.
"""
