"""Adapters in a running model: bases they share, banks, wrapped layers, plans, merged weights.

Imports base, contract and errors; the canary holds the methods' transforms against slow sums.
"""
