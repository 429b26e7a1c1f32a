"""The tasks of training: causal language modelling, classes, numbers, images.

Imports the modules beside the rooms.
"""
