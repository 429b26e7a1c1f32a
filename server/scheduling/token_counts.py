"""Which tokens stand in a sequence, and how often in its answer, kept up to date as it grows."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_FIRST_CAPACITY = 16


class TokenCounts:
    """The different tokens of a growing text, and how often each stands in its second part.

    Each token of the text is read once.

    Args:
        start: the first position that is read.
        answer: the first position that is counted; tokens before it count as none.

    Attributes:
        tokens: int64 `[n]`, the different tokens in the order in which they first appeared.
        counts: int64 `[n]`, how often each was counted.
    """

    def __init__(self, start: int, answer: int) -> None:
        self._next, self._answer = start, answer
        self._places: dict[int, int] = {}
        self._take(np.zeros((2, _FIRST_CAPACITY), dtype=np.int64))

    def follow(self, text: Sequence[int]) -> None:
        """Read the tokens that were added to the text; safe to call twice."""
        for token in text[self._next :]:
            place = self._places.get(token)
            if place is None:
                place = self._add(token)
            if self._next >= self._answer:
                self._items[place] += 1
            self._next += 1

    def _add(self, token: int) -> int:
        place = self._places[token] = len(self._places)
        if place == self._table.shape[1]:
            self._take(np.hstack([self._table, np.zeros_like(self._table)]))
        self._names[place] = token
        self.tokens, self.counts = self._table[0, : place + 1], self._table[1, : place + 1]
        return place

    def _take(self, table: NDArray[np.int64]) -> None:
        self._table = table
        # Numpy takes several times as long for one number.
        self._names, self._items = memoryview(table[0]), memoryview(table[1])
        self.tokens, self.counts = table[0, : len(self._places)], table[1, : len(self._places)]
