"""The transforms that methods are built on, and sums over few coefficients.

Imports contract and kernels.
"""
