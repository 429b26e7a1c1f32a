"""Which way an adapter's rows take: through merged weights or factored. Pure.

For now by one rule: an adapter that has at least half of the recent requests is worth a merged
copy (nothing per token, dense bytes); all others are factored (a few percent per token, kilobytes).
A request keeps the mode it was given.
"""

from collections import Counter, deque
from typing import Literal

Mode = Literal["factored", "merged"]
ModeSetting = Literal["auto", "factored", "merged"]


class Planner:
    """Chooses a mode per request.

    Args:
        setting: `factored` or `merged` forces that mode for all.
        can_merge: whether the merged cache holds at least one copy.
        window: how many requests count as recent.
    """

    def __init__(self, setting: ModeSetting, can_merge: bool = True, window: int = 64) -> None:
        self._setting = setting
        self._can_merge = can_merge
        self._recent: deque[str] = deque(maxlen=window)
        self._counts: Counter[str] = Counter()

    def choose(self, digest: str) -> Mode:
        """Return the mode of one more request for the adapter `digest`."""
        if self._setting != "auto":
            return self._setting
        if len(self._recent) == self._recent.maxlen:
            self._counts[self._recent[0]] -= 1
        self._recent.append(digest)
        self._counts[digest] += 1
        self._counts += Counter()  # drops zeros
        frequent = 2 * self._counts[digest] >= (self._recent.maxlen or 0)
        return "merged" if self._can_merge and frequent else "factored"
