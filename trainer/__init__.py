"""The training worker, and the demo's base and texts."""
