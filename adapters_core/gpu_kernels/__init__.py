"""Triton's kernels for a GPU, beside torch's way to the same numbers; imported only where they run.

Imports contract. A module with kernels is imported once `running.runs_on` says that they run.
"""
