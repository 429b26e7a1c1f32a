"""Which adapters are in memory: LRU bounded in bytes, never evicting what is in use. Pure.

An entry passes through loading -> ready, or loading -> failed. The loader charges its bytes before
it allocates them; entries that somebody holds are never given up for that.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Entry:
    """One adapter in one mode. It is also the lease of the sequences that use it.

    Args:
        key: digest and mode.
        size_bytes: 0 until it is charged.
        users: sequences that hold it.
        payload: what the loader made of it: tensors, a slot.
        error: why it could not be loaded.
    """

    key: Hashable
    size_bytes: int = 0
    users: int = 0
    pinned: bool = False
    payload: Any = None
    error: Exception | None = None

    @property
    def is_ready(self) -> bool:
        """Return whether the adapter may be used in the next step."""
        return self.payload is not None


@dataclass
class Residency:
    """The entries of one cache, the least recently used first."""

    capacity_bytes: int
    used_bytes: int = 0
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    entries: "OrderedDict[Hashable, Entry]" = field(default_factory=OrderedDict)

    def acquire(self, key: Hashable) -> tuple[Entry, bool]:
        """Return the entry of `key` with one user more, and whether the caller must load it."""
        entry = self.entries.get(key)
        is_new = entry is None
        if entry is None:
            entry = self.entries[key] = Entry(key)
            self.misses += 1
        else:
            self.hits += 1
        self.entries.move_to_end(key)
        entry.users += 1
        return entry, is_new

    def release(self, entry: Entry) -> None:
        """Give up one use; the entry stays until its bytes are wanted."""
        assert entry.users > 0, "released more often than acquired"
        entry.users -= 1

    def charge(self, entry: Entry, size_bytes: int) -> list[Entry] | None:
        """Account for an entry's bytes; return what had to be evicted, or None if nothing helps.

        None leaves everything as it was: the caller waits for a release and asks again.
        """
        assert entry.size_bytes == 0, "an entry is charged once"
        victims, freed = [], self.capacity_bytes - self.used_bytes
        for other in self.entries.values():
            if freed >= size_bytes:
                break
            if other.users == 0 and not other.pinned and other.is_ready:
                victims.append(other)
                freed += other.size_bytes
        if freed < size_bytes:
            return None
        for victim in victims:
            self.drop(victim)
            self.evictions += 1
        entry.size_bytes = size_bytes
        self.used_bytes += size_bytes
        return victims

    def evict_one(self) -> Entry | None:
        """Drop the least recently used entry that nobody holds and return it; None if all are held.

        The caller frees its payload.
        """
        for entry in self.entries.values():
            if entry.users == 0 and not entry.pinned and entry.is_ready:
                self.drop(entry)
                self.evictions += 1
                return entry
        return None

    def drop(self, entry: Entry) -> None:
        """Forget an entry and its bytes; the caller frees its payload."""
        del self.entries[entry.key]
        self.used_bytes -= entry.size_bytes

    def contains(self, key: Hashable) -> bool:
        """Return whether `key` is ready in memory; does not count as a use."""
        entry = self.entries.get(key)
        return entry is not None and entry.is_ready

    def check_integrity(self) -> None:
        """Assert that the books balance."""
        assert self.used_bytes == sum(entry.size_bytes for entry in self.entries.values())
        assert self.used_bytes <= self.capacity_bytes
        assert all(entry.users >= 0 for entry in self.entries.values())
