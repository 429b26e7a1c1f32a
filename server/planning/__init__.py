"""Whether an adapter's rows run factored or merged, from costs that are measured on this machine.

Imports adapters and what that imports.
"""
