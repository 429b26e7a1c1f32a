"""Bounds the number of adapters with a metric series of their own. Pure."""

import threading

OTHER = "other"


class LabelLimit:
    """Chooses the names with a label of their own, for good; all others share `other`.

    Counts therefore only grow, and their sum is the exact total at every moment. Dropping the
    least busy name (as space-saving sketches do) would follow the traffic, but either takes its
    count out of the sum or adds it to `other`, where every rate would show a peak that did not
    happen. The price: a name that becomes busy when all labels are taken stays in `other` until
    the next start. So that rare names do not take all labels, only the first half is given at first
    sight; the rest goes to names that have been seen `_EARNED` times.
    """

    _EARNED = 20
    _MAX_CANDIDATES = 1000

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._chosen: set[str] = set()
        self._seen: dict[str, int] = {}
        self._lock = threading.Lock()

    def label_of(self, name: str) -> str:
        """Return the label to count one more request for `name` under."""
        with self._lock:
            if name in self._chosen:
                return name
            if len(self._chosen) >= self._limit or not self._has_earned(name):
                return OTHER
            self._chosen.add(name)
            return name

    def given(self, name: str) -> str:
        """Return the label that `name` has so far; nothing is counted."""
        with self._lock:
            return name if name in self._chosen else OTHER

    def _has_earned(self, name: str) -> bool:
        if len(self._chosen) < self._limit // 2:
            return True
        self._seen[name] = self._seen.get(name, 0) + 1
        if self._seen[name] >= self._EARNED:
            del self._seen[name]
            return True
        if len(self._seen) > self._MAX_CANDIDATES:  # halve the counts: rare names are forgotten
            self._seen = {name: count // 2 for name, count in self._seen.items() if count > 1}
        return False
