"""How often each token stands in a sequence, kept up to date as the sequence grows."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_FIRST_CAPACITY = 16


class TokenCounts:
    """The different tokens of a growing text and how often each was counted.

    A token is counted once: what a step costs does not grow with the text.

    Args:
        start: the first position that counts.
    """

    def __init__(self, start: int = 0) -> None:
        self._next = start
        self._places: dict[int, int] = {}
        self._tokens: NDArray[np.int64] = np.zeros(_FIRST_CAPACITY, dtype=np.int64)
        self._counts: NDArray[np.int64] = np.zeros(_FIRST_CAPACITY, dtype=np.int64)

    def follow(self, text: Sequence[int]) -> None:
        """Count the tokens that were added to the text; safe to call twice."""
        for position in range(self._next, len(text)):
            self._count(text[position])
        self._next = max(self._next, len(text))

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Return the different tokens in the order in which they first appeared."""
        return self._tokens[: len(self._places)]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Return how often each of `tokens` was counted."""
        return self._counts[: len(self._places)]

    def _count(self, token: int) -> None:
        place = self._places.setdefault(token, len(self._places))
        if place == len(self._tokens):
            self._tokens, self._counts = _doubled(self._tokens), _doubled(self._counts)
        self._tokens[place] = token
        self._counts[place] += 1


def _doubled(array: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a copy with as much room again behind it."""
    return np.concatenate([array, np.zeros_like(array)])
