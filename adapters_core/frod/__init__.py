"""What FRoD makes from the base's weights, and what its files say of it.

Imports contract, errors, positions and transforms.
"""
