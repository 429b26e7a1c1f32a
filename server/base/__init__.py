"""The base's model: its kind, loading it, an embedder's pooling. Imports errors."""
