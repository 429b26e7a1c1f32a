"""One step of a causal LM on the device: tensors, attention, sampling, and the check at the start.

Imports adapters, base, scheduling and errors.
"""
