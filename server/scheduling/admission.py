"""How many requests are open, tenant by tenant, and after how long to try again. Pure."""

import math
from collections import Counter, deque
from dataclasses import dataclass

from server.errors import Overloaded

#: All tenants together may have so many times the open sequences of one.
_QUEUES = 4
_MAX_WAIT_S = 60


@dataclass(frozen=True)
class Quota:
    """A tenant's queue.

    Args:
        limit: how many may be open.
        remaining: how many more are accepted now.
        reset_s: in about how many seconds all that are open will have ended; 0 if none is.
    """

    limit: int
    remaining: int
    reset_s: int


class OpenRequests:
    """Counts what was accepted and has not ended.

    Args:
        limit: of one tenant.
        what: is counted, in the plural.
    """

    def __init__(self, limit: int, what: str) -> None:
        self._limit, self._what = limit, what
        self._open: Counter[str] = Counter()
        self._ends: deque[float] = deque(maxlen=64)  # when the last ones were over

    @property
    def total(self) -> int:
        """Return how many are open."""
        return self._open.total()

    def begin(self, tenant: str, now: float, count: int = 1) -> None:
        """Count `count` more of a tenant; the last of them may be above the limit.

        Raises:
            Overloaded: the tenant, or all tenants together, have reached their limit.
        """
        for num_open, most in ((self._open[tenant], self._limit), (self.total, self._all)):
            if num_open >= most:
                wait_s = self._wait_s(most, now)
                message = f"{num_open} {self._what} are open, the limit is {most}; try again in "
                raise Overloaded(f"{message}{wait_s} s", retry_after_s=wait_s)
        self._open[tenant] += count

    def end(self, tenant: str, now: float, count: int = 1) -> None:
        """Count `count` fewer of a tenant."""
        self._ends.extend([now] * count)
        self._open[tenant] -= count
        if not self._open[tenant]:
            del self._open[tenant]

    def quota(self, tenant: str, now: float) -> Quota:
        """Return how much of its queue a tenant has used."""
        num_open = self._open[tenant]
        remaining = min(self._limit - num_open, self._all - self.total)
        return Quota(self._limit, max(0, remaining), math.ceil(num_open * self._pace_s(now)))

    @property
    def _all(self) -> int:
        return _QUEUES * self._limit

    def _wait_s(self, most: int, now: float) -> int:
        """Return in how many seconds a tenth of `most` will end at the rate of the last ends."""
        return min(_MAX_WAIT_S, max(1, math.ceil(most / 10 * self._pace_s(now))))

    def _pace_s(self, now: float) -> float:
        """Return the seconds from one end to the next, of the last ends."""
        seconds = now - self._ends[0] if self._ends else 0.0
        return seconds / max(1, len(self._ends))
