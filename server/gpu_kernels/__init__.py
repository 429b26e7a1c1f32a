"""Triton's kernels of the base's own forward pass; imported only where they run.

Imports adapters_core. A module with kernels is imported once `runs_on` says that they run.
"""
