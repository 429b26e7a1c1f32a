"""How the benches call the adapters that they register."""


def name_of(number: int) -> str:
    """Return the name under which adapter `number` is registered."""
    return f"adapter-{number:06d}"
