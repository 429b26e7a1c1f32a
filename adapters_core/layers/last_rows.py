"""The rows that a linear saw last, and what was made of them.

q, k and v see the same rows, and so do gate and up.
"""

from collections.abc import Hashable
from typing import Any

from torch import Tensor


class LastRows:
    """Rows, a key of what was made of them, and that.

    Holding on to the rows keeps their memory from being used for another tensor, so the same
    address means the same rows.
    """

    def __init__(self) -> None:
        self.x: Tensor | None = None
        self.key: Hashable = None
        self.made: Any = None

    def are(self, x: Tensor, key: Hashable) -> bool:
        """Return whether they are the rows x, and what was made of them is by the key."""
        return self.x is not None and self.key == key and _same_memory(self.x, x)

    def put(self, x: Tensor, key: Hashable, made: Any) -> None:
        """Let the rows x be the last ones."""
        self.x, self.key, self.made = x, key, made


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()
