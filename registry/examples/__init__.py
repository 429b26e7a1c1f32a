"""Examples of a file as training and evaluation read them: records, texts, images, and figures.

Imports the registry's checks of uploads and adapters_core's reading of texts.
"""
