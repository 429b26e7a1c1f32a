"""The error for an example that cannot be evaluated."""

from server.errors import InvalidRequest


def example_error(line: int, error: object) -> InvalidRequest:
    """Return what is wrong with the example that begins on a line."""
    return InvalidRequest(f"line {line}: {error}", "file")
