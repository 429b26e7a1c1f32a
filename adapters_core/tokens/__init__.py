"""How a base reads requests and writes answers, in serving and in training.

Imports nothing of this package.
"""
