"""Adapters that stay in memory because somebody said so, by name; for this process only."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from server.adapters.loader import Loader
from server.adapters.modes import Mode
from server.adapters.residency import Entry
from server.errors import Overloaded, PinLimit

#: The part of a cache that pins may take: the rest is for everybody else.
_SHARE = 0.75


@dataclass(frozen=True)
class Pin:
    """What a name keeps in memory."""

    digest: str
    mode: Mode
    entry: Entry


class Pins:
    """One pin per name; safe from any thread.

    A pin holds the version that its name meant when it was set. Pinning again moves it.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._by_name: dict[str, Pin] = {}
        self._lock = threading.Lock()

    def set(self, name: str, entry: Entry) -> None:
        """Pin a leased entry that is ready, instead of what `name` pinned before.

        Raises:
            PinLimit: pins would take too much of the cache; the message gives both.
            Overloaded: the adapter is about to be evicted for one that waits.
        """
        assert isinstance(entry.key, tuple)
        digest, mode = entry.key
        with self._lock:
            old = self._by_name.get(name)
            if old is not None and old.entry is entry:
                return
            self._check(entry, mode, old)
            if not self._loader.pin(entry):
                raise Overloaded("memory is short and the adapter is on its way out; try again")
            self._by_name[name] = Pin(digest, mode, entry)
        if old is not None:
            self._loader.unpin(old.entry)

    def remove(self, name: str, digest: str | None = None) -> bool:
        """Take a name's pin away, or only if it holds `digest`; return whether there was one."""
        with self._lock:
            pin = self._by_name.get(name)
            if pin is None or digest not in (None, pin.digest):
                return False
            del self._by_name[name]
        self._loader.unpin(pin.entry)
        return True

    def drop_dead(self, is_live: Callable[[str], bool]) -> int:
        """Take away the pins of digests that no record names any more; return how many."""
        with self._lock:
            pins = {name: pin.digest for name, pin in self._by_name.items()}
        return sum(self.remove(name, d) for name, d in pins.items() if not is_live(d))

    def digest_of(self, name: str) -> str | None:
        """Return what `name` has pinned."""
        with self._lock:
            pin = self._by_name.get(name)
            return pin.digest if pin else None

    def _check(self, entry: Entry, mode: Mode, old: Pin | None) -> None:
        pinned, capacity = self._loader.pinned_bytes(mode)
        freed = old.entry.size_bytes if old and old.mode == mode and old.entry.pins == 1 else 0
        added = 0 if entry.pins else entry.size_bytes
        if pinned - freed + added > _SHARE * capacity:
            raise PinLimit(
                f"pinning {entry.size_bytes} bytes beside {pinned} that are pinned would take more "
                f"than {int(_SHARE * capacity)} of the {capacity} bytes of {mode} adapters; unpin "
                "others first, or give the server more memory"
            )
