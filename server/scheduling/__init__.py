"""Which sequences a step runs, their pages of keys and values, and the thread that runs steps.

Imports errors alone.
"""
