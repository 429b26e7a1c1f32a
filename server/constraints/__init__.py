"""What answers must be like: JSON of a schema, a regular expression, a choice or a grammar.

Nothing here knows HTTP or the engine; the library behind it is llguidance.
"""
