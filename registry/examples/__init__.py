"""Examples of a file as training and evaluation read them: records, texts, images, and figures.

May import training_data and adapters_core.tokens.
"""
