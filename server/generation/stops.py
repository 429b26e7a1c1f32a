"""Stop strings, looked for character by character in text that comes in pieces."""

from collections.abc import Sequence
from functools import lru_cache


class StopSearch:
    """Finds the stop string that ends first; the longest of several that end there.

    Each character costs the same, however the text is cut (Knuth, Morris and Pratt).

    Args:
        stops: none of them empty.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = sorted(stops, key=len, reverse=True)
        self._tables = [_fallbacks(stop) for stop in self._stops]
        self._begun = [0] * len(stops)

    @property
    def num_begun(self) -> int:
        """Return with how many characters of a stop string the text ends, at most."""
        return max(self._begun, default=0)

    def take(self, char: str) -> str | None:
        """Take the next character; return the stop string that it ends."""
        found = None
        for number, (stop, table) in enumerate(zip(self._stops, self._tables, strict=True)):
            length = self._begun[number]
            while length and stop[length] != char:
                length = table[length - 1]
            length += stop[length] == char
            if length == len(stop):
                found = found or stop
                length = table[length - 1]
            self._begun[number] = length
        return found


@lru_cache(maxsize=1024)
def _fallbacks(stop: str) -> tuple[int, ...]:
    """Return for each beginning of a text the length of the longest other one that ends it."""
    table = [0]
    for char in stop[1:]:
        length = table[-1]
        while length and stop[length] != char:
            length = table[length - 1]
        table.append(length + (stop[length] == char))
    return tuple(table)
