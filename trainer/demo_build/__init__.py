"""Programs that make the demo's base, adapters and texts in trainer/demo."""
