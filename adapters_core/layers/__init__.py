"""Adapters in a running model: bases they share, banks, wrapped layers, plans, merged weights.

Imports base and contract; the canary holds their transforms against slow sums.
"""
