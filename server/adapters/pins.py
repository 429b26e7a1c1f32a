"""Adapters that are kept in memory by request (PUT …/pin), by name; for this process only."""

import threading
from collections.abc import Callable

from server.adapters.memory import DeviceMemory
from server.adapters.residency import Entry
from server.errors import Overloaded, PinLimit

#: The part of a cache that pins may take: the rest is for all other adapters.
_SHARE = 0.75


class Pins:
    """One pin per name; safe from any thread.

    A pin holds the version that its name meant when it was set. Pinning again moves it.
    """

    def __init__(self, memory: DeviceMemory) -> None:
        self._memory = memory
        self._by_name: dict[str, Entry] = {}
        self._lock = threading.Lock()

    def set(self, name: str, entry: Entry) -> None:
        """Pin a leased entry that is ready, instead of what `name` pinned before.

        Raises:
            PinLimit: pins would take too much of the cache; the message gives both.
            Overloaded: the adapter is about to be evicted for another load.
        """
        with self._lock:
            old = self._by_name.get(name)
            if old is not None and old is entry:
                return
            self._check(entry, old)
            if not self._memory.pin(entry):
                raise Overloaded("memory is short and the adapter is on its way out; try again")
            self._by_name[name] = entry
        if old is not None:
            self._memory.unpin(old)

    def remove(self, name: str, digest: str | None = None) -> bool:
        """Take a name's pin away, or only if it holds `digest`; return whether there was one."""
        with self._lock:
            entry = self._by_name.get(name)
            if entry is None or digest not in (None, entry.digest):
                return False
            del self._by_name[name]
        self._memory.unpin(entry)
        return True

    def drop_dead(self, is_live: Callable[[str], bool]) -> int:
        """Take away the pins of digests that no record names any more; return how many."""
        with self._lock:
            digests = {name: entry.digest for name, entry in self._by_name.items()}
        return sum(self.remove(name, d) for name, d in digests.items() if not is_live(d))

    def digest_of(self, name: str) -> str | None:
        """Return what `name` has pinned."""
        with self._lock:
            entry = self._by_name.get(name)
            return entry.digest if entry else None

    def _check(self, entry: Entry, old: Entry | None) -> None:
        pinned, capacity = self._memory.pinned_bytes(entry.mode)
        frees = old is not None and old.mode == entry.mode and old.pins == 1
        freed = old.size_bytes if old and frees else 0
        added = 0 if entry.pins else entry.size_bytes
        if pinned - freed + added > _SHARE * capacity:
            raise PinLimit(
                f"pinning {entry.size_bytes} bytes beside {pinned} that are pinned would take more "
                f"than {int(_SHARE * capacity)} of the {capacity} bytes of {entry.mode} adapters; "
                "unpin others first, or give the server more memory"
            )
