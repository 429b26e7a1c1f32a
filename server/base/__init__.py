"""The base's model: loading it, what it is for, how an embedder pools. Imports errors."""
