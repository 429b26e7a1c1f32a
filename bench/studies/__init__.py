"""What methods learn: held-out figures of each method by its preset, beside references.

May import lib.
"""
