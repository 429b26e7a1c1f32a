"""The refusal of an example."""

from server.errors import InvalidRequest


def faulty(line: int, error: object) -> InvalidRequest:
    """Return what is wrong with the example that begins on a line."""
    return InvalidRequest(f"line {line}: {error}", "file")
