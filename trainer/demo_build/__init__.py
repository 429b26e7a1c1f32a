"""How the demo's base and adapters in trainer/demo were made."""
