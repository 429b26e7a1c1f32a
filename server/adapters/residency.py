"""Which adapters are in memory: LRU bounded in bytes, never evicting what is in use. Pure.

An entry passes through loading -> ready, or loading -> failed. A load charges its bytes before it
allocates them; entries with a user or a pin are not evicted for that. Loads that cannot charge
their bytes wait, first in first out. The first of them takes what is idle at once, and entries in
use *leave*: they serve the users that they have and accept no new ones, so that the wait ends with
those users' generations, however dense the traffic is.
"""

from collections import OrderedDict, deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from server.adapters.modes import Mode

#: An adapter's digest, and how its rows are computed.
Key = tuple[str, Mode]


@dataclass(eq=False)
class Entry:
    """One adapter in one mode. It is also the lease of the sequences that use it.

    Args:
        key: digest and mode.
        size_bytes: 0 until it is charged.
        users: leases on it.
        pins: adapter names that are pinned to it.
        payload: what the loader made of it: tensors, a slot.
        error: why it could not be loaded.
        is_charged: whether its bytes are accounted for.
        is_leaving: whether it is dropped with its last lease.
        ready_at: when it was loaded, on the monotonic clock.
    """

    key: Key
    size_bytes: int = 0
    users: int = 0
    pins: int = 0
    payload: Any = None
    error: Exception | None = None
    is_charged: bool = False
    is_leaving: bool = False
    ready_at: float | None = None

    @property
    def digest(self) -> str:
        """Return the adapter's digest."""
        return self.key[0]

    @property
    def mode(self) -> Mode:
        """Return the mode in which it is in memory."""
        return self.key[1]

    @property
    def is_ready(self) -> bool:
        """Return whether the adapter may be used in the next step."""
        return self.payload is not None

    @property
    def is_idle(self) -> bool:
        """Return whether it may be evicted: ready, without lease or pin."""
        return self.users == 0 and self.pins == 0 and self.is_ready


@dataclass
class Residency:
    """The entries of one cache, the least recently used first.

    Args:
        capacity_bytes: of all entries, those that leave included.
        num_charged: entries that have room: those that are loaded, or are being made in it.
        wanted: keys that are evicted only when nothing else is left.
        leaving: entries that no key finds any more; each is dropped with its last lease.
        queue: entries that wait for room, first in first out.
    """

    capacity_bytes: int
    used_bytes: int = 0
    num_charged: int = 0
    pinned_bytes: int = 0
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    entries: "OrderedDict[Key, Entry]" = field(default_factory=OrderedDict)
    wanted: Collection[Key] = frozenset()
    leaving: list[Entry] = field(default_factory=list)
    queue: deque[Entry] = field(default_factory=deque)

    def acquire(self, key: Key) -> tuple[Entry, bool]:
        """Return a lease on the entry of `key`, and whether the caller must load it."""
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

    def release(self, entry: Entry) -> bool:
        """Give a lease back; return whether the entry was dropped (the caller frees its payload).

        Other entries stay until their bytes are needed.
        """
        assert entry.users > 0, "released more often than acquired"
        entry.users -= 1
        if entry.is_leaving and entry.users == 0:
            self.drop(entry)
            self.evictions += 1
            return True
        return False

    def charge(
        self, entry: Entry, size_bytes: int, can_wait: bool = True
    ) -> tuple[bool, list[Entry]]:
        """Account for an entry's bytes, evicting what is idle.

        Returns whether that is done, and what was evicted. If it is not done, the entry is in the
        queue: the caller waits for a release and calls again. With `can_wait` False nothing is
        changed then.
        """
        assert not entry.is_charged, "an entry is charged once"
        if not self._is_first(entry) or not (can_wait or self._has_idle(size_bytes)):
            if can_wait and entry not in self.queue:
                self.queue.append(entry)
            return False, []
        victims = self._evict_idle(size_bytes)
        if self.used_bytes + size_bytes > self.capacity_bytes:
            if entry not in self.queue:
                self.queue.append(entry)
            self._retire(size_bytes)
            return False, victims
        self._leave_queue(entry)
        entry.size_bytes, entry.is_charged = size_bytes, True
        self.used_bytes += size_bytes
        self.num_charged += 1
        self.pinned_bytes += size_bytes if entry.pins else 0
        return True, victims

    def refund(self, entry: Entry) -> None:
        """Take a charge back: what the entry was charged for was not allocated after all."""
        self.num_charged -= entry.is_charged
        self.used_bytes -= entry.size_bytes
        self.pinned_bytes -= entry.size_bytes if entry.pins else 0
        entry.size_bytes, entry.is_charged = 0, False

    def evict_one(self) -> Entry | None:
        """Drop and return the least recently used idle entry; None if there is none.

        The caller frees its payload.
        """
        victim = next(self._victims(), None)
        if victim is not None:
            self.drop(victim)
            self.evictions += 1
        return victim

    def retire_one(self) -> None:
        """Mark the least recently used entry in use as leaving, unless one leaves already."""
        oldest = next((e for e in self.entries.values() if e.is_ready and not e.pins), None)
        if oldest is not None and not self.leaving:
            self._let_leave(oldest)

    def pin(self, entry: Entry) -> None:
        """Keep an entry in memory until it is unpinned as often as it was pinned."""
        assert not entry.is_leaving, "it is not found by its key any more"
        self.pinned_bytes += 0 if entry.pins else entry.size_bytes
        entry.pins += 1

    def unpin(self, entry: Entry) -> None:
        """Take one pin away."""
        assert entry.pins > 0, "unpinned more often than pinned"
        entry.pins -= 1
        self.pinned_bytes -= 0 if entry.pins else entry.size_bytes

    def drop(self, entry: Entry) -> None:
        """Forget an entry and its bytes; the caller frees its payload."""
        self._leave_queue(entry)
        if entry.is_leaving:
            self.leaving.remove(entry)
        else:
            del self.entries[entry.key]
        self.used_bytes -= entry.size_bytes
        self.num_charged -= entry.is_charged
        self.pinned_bytes -= entry.size_bytes if entry.pins else 0

    def contains(self, key: Key) -> bool:
        """Return whether `key` is ready in memory; does not count as a use."""
        return self.ready(key) is not None

    def ready(self, key: Key) -> Entry | None:
        """Return the entry of `key` if it is ready in memory; does not count as a use."""
        entry = self.entries.get(key)
        return entry if entry is not None and entry.is_ready else None

    def check_integrity(self) -> None:
        """Assert that the books balance."""
        known = [*self.entries.values(), *self.leaving]
        assert self.used_bytes == sum(entry.size_bytes for entry in known)
        assert self.num_charged == sum(entry.is_charged for entry in known)
        assert self.used_bytes <= self.capacity_bytes
        assert self.pinned_bytes == sum(entry.size_bytes for entry in known if entry.pins)
        assert all(entry.users >= 0 for entry in known)
        assert all(e.is_leaving and e.users and not e.pins for e in self.leaving)
        assert not any(entry.is_charged for entry in self.queue)
        assert all(self.entries.get(entry.key) is entry for entry in self.queue)

    def _is_first(self, entry: Entry) -> bool:
        return not self.queue or self.queue[0] is entry

    def _leave_queue(self, entry: Entry) -> None:
        if entry in self.queue:
            self.queue.remove(entry)

    def _victims(self) -> Iterator[Entry]:
        """Yield what may be evicted, in order."""
        yield from (e for e in self.entries.values() if e.is_idle and e.key not in self.wanted)
        yield from (e for e in self.entries.values() if e.is_idle and e.key in self.wanted)

    def _has_idle(self, size_bytes: int) -> bool:
        free = self.capacity_bytes - self.used_bytes
        for victim in self._victims():
            if free >= size_bytes:
                break
            free += victim.size_bytes
        return free >= size_bytes

    def _evict_idle(self, size_bytes: int) -> list[Entry]:
        """Drop idle entries until so much is free, or none is left."""
        victims, free = [], self.capacity_bytes - self.used_bytes
        for victim in self._victims():
            if free >= size_bytes:
                break
            victims.append(victim)
            free += victim.size_bytes
        for victim in victims:
            self.drop(victim)
            self.evictions += 1
        return victims

    def _retire(self, size_bytes: int) -> None:
        """Let as many entries leave as free so many bytes once their leases are given back."""
        coming = self.capacity_bytes - self.used_bytes + sum(e.size_bytes for e in self.leaving)
        for entry in list(self.entries.values()):
            if coming >= size_bytes:
                return
            if entry.is_ready and not entry.pins:
                self._let_leave(entry)
                coming += entry.size_bytes

    def _let_leave(self, entry: Entry) -> None:
        assert entry.users > 0, "an idle entry is evicted at once"
        del self.entries[entry.key]
        entry.is_leaving = True
        self.leaving.append(entry)
