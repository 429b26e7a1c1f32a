"""The adapters' memory on the device and their copies on the host, under one lock.

A load charges bytes before it allocates them. One that finds no room waits until leases are given
back, or is abandoned if it has no lease holder. Evicted coefficients stay in the host's memory as
far as that has room.
"""

import logging
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from adapters_core.base.heads import in_host_memory
from adapters_core.contract.method import Coefficients
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from server.adapters.banks import Banks
from server.adapters.host_cache import HostCache, HostCopy
from server.adapters.modes import Mode
from server.adapters.out_of_memory import give_back_cached
from server.adapters.payload import Factored, Merged
from server.adapters.residency import Entry, Residency
from server.errors import AdapterTooLarge, Draining
from server.telemetry.observer import CacheStats

_LOG = logging.getLogger("overtone.memory")
#: Of a new bank on a GPU.
_FIRST_BYTES, _MOST_FIRST_SLOTS = 16 << 20, 512
Tier = Literal["merged", "device", "host"]
_TIERS: dict[Mode, Tier] = {"merged": "merged", "factored": "device"}
_NAMES: dict[Mode, str] = {"factored": "coefficients", "merged": "merged"}


class Abandoned(Exception):
    """A load finds no room, and it has no lease holder."""


@dataclass(frozen=True)
class Capacities:
    """Bytes that are set aside.

    Args:
        coefficient_bytes: for factored adapters' rows and heads.
        basis_bytes: for the bases of all banks.
        merged_bytes: for merged weights and heads.
        host_bytes: for copies of evicted factored adapters in host memory.
    """

    coefficient_bytes: int
    basis_bytes: int
    merged_bytes: int
    host_bytes: int = 0


class DeviceMemory:
    """Owns the lock, both caches' books, the banks, and the host's copies; safe from any thread.

    Args:
        capacities: of each part.
        basis_cache: where the banks' bases come from.
    """

    def __init__(self, capacities: Capacities, basis_cache: BasisCache) -> None:
        self._caches: dict[Mode, Residency] = {
            "factored": Residency(capacities.coefficient_bytes),
            "merged": Residency(capacities.merged_bytes),
        }
        self._host = HostCache(capacities.host_bytes)
        self._banks = Banks(capacities.basis_bytes)
        self._basis_cache = basis_cache
        self._old: dict[str, Tensor] = {}  # evicted merged weights, to be written over
        self._closed = False
        self._num_waiting = 0  # loads that wait for room
        #: Guards all of the above; notified when bytes may have become free.
        self._room = threading.Condition()
        # One new bank at a time: two that are both counted would wait for each other's room.
        self._making_bank = threading.Lock()

    def acquire(self, digest: str, mode: Mode) -> tuple[Entry, bool]:
        """Return a lease of the adapter, and whether the caller must load it.

        Raises:
            Draining: the memory is closed.
        """
        with self._room:
            if self._closed:
                raise Draining("the server is going down; send the request to another one")
            return self._caches[mode].acquire((digest, mode))

    def acquire_ready(self, digest: str, mode: Mode) -> Entry | None:
        """Return a lease if the adapter is in memory in this mode."""
        with self._room:
            cache = self._caches[mode]
            found = cache.ready((digest, mode))
            if found is not None:
                cache.acquire(found.key)
            return found

    def peek(self, digest: str, mode: Mode) -> Entry | None:
        """Return the entry if it is ready in memory, without a lease: to look at, not to use."""
        with self._room:
            return self._caches[mode].ready((digest, mode))

    def release(self, entry: Entry) -> None:
        """Give a lease back; safe for an entry that failed."""
        with self._room:
            if self._caches[entry.mode].release(entry):
                self._free(entry)
            self._room.notify_all()

    def prefer(self, digests: Collection[str]) -> None:
        """Evict the merged weights of these adapters last."""
        with self._room:
            self._caches["merged"].wanted = frozenset((digest, "merged") for digest in digests)

    def pin(self, entry: Entry) -> bool:
        """Keep a leased entry in memory when the lease is given back; False if it is leaving."""
        with self._room:
            if not entry.is_leaving:
                self._caches[entry.mode].pin(entry)
            return not entry.is_leaving

    def unpin(self, entry: Entry) -> None:
        """Let an entry be evicted again; loads that wait for room may take its bytes."""
        with self._room:
            self._caches[entry.mode].unpin(entry)
            self._room.notify_all()

    def pinned_bytes(self, mode: Mode) -> tuple[int, int]:
        """Return the bytes that are pinned in a cache, and the cache's capacity."""
        with self._room:
            return self._caches[mode].pinned_bytes, self._caches[mode].capacity_bytes

    def modes_of(self, digest: str) -> list[Mode]:
        """Return the modes in which the adapter is in memory."""
        with self._room:
            return [m for m, cache in self._caches.items() if cache.contains((digest, m))]

    def tiers_of(self, digest: str) -> list[Tier]:
        """Return where the adapter is in memory, the fastest first."""
        with self._room:
            tiers = _TIERS.items()
            found = [tier for mode, tier in tiers if self._caches[mode].contains((digest, mode))]
            return [*found, "host"] if digest in self._host.copies else found

    def stats(self, mode: Mode) -> list[CacheStats]:
        """Return the statistics of a mode's cache; for factored adapters also the host's."""
        with self._room:
            cache, host = self._caches[mode], self._host
            found = [_stats(_NAMES[mode], cache.num_charged, cache)]
            return found + ([_stats("host", len(host.copies), host)] if mode == "factored" else [])

    @property
    def is_short_of_room(self) -> bool:
        """Return whether a load waits until leases are given back; safe without the lock."""
        return self._num_waiting > 0

    def close(self) -> None:
        """Take no more leases; loads that wait for room fail."""
        with self._room:
            self._closed = True
            self._room.notify_all()

    def charge(self, entry: Entry, size_bytes: int) -> dict[str, Tensor]:
        """Account for a load's bytes, evicting what is not in use, or wait until that helps.

        Returns the evicted merged weights for a merged entry: no step reads them any more, their
        memory may be written over.

        Raises:
            AdapterTooLarge: so many bytes can never be free.
            Abandoned: there is no room, and the entry has neither lease nor pin.
            Draining: the memory was closed meanwhile.
        """
        cache = self._caches[entry.mode]
        with self._room:
            while not self._has_charged(entry, cache, size_bytes):
                self._wait_for_room()
            if entry.mode != "merged":
                return {}
            old, self._old = self._old, {}
            return old

    @contextmanager
    def bank(
        self, layout: Layout, layers: Mapping[str, Coefficients] | None = None
    ) -> Iterator[Bank]:
        """Give a load the bank of `layout`; it is kept, empty or not, until the block ends.

        Args:
            layout: of the adapter.
            layers: its coefficients, for a layout whose bases depend on them.

        Raises:
            AdapterTooLarge: its bases alone are over the bound.
            Draining: the memory was closed while the load waited for room.
        """
        with self._room:
            bank = self._banks.hold(layout)
        if bank is None:
            with self._making_bank:
                with self._room:
                    bank = self._banks.hold(layout)
                bank = bank or self._new_bank(layout, layers)
        try:
            yield bank
        finally:
            with self._room:
                self._banks.let_go(bank)
                self._room.notify_all()

    def take_copy(self, digest: str) -> HostCopy | None:
        """Return the host's copy of an adapter and forget it there; None if there is none."""
        with self._room:
            return self._host.take(digest)

    def make_room(self) -> None:
        """Evict all that is not in use, since an allocation failed: more is used than was counted.

        The device's allocator gives back what it keeps for later.
        """
        with self._room:
            count = sum(self._evict_all(cache) for cache in self._caches.values())
            self._old.clear()
            self._room.notify_all()
        give_back_cached(self._basis_cache.device)
        _LOG.warning("memory ran out; %d adapters that were not in use are evicted", count)

    def refund(self, entry: Entry) -> None:
        """Take a load's charge back: it failed, and is tried again."""
        with self._room:
            self._caches[entry.mode].refund(entry)
            self._room.notify_all()

    def end_load(self, entry: Entry, error: Exception | None = None) -> None:
        """Note that a load is over: the entry is ready, or failed with `error` and is dropped."""
        with self._room:
            if error is not None:
                entry.error = error
                self._caches[entry.mode].drop(entry)
            self._room.notify_all()  # an entry without lease and pin can be evicted from here on

    def _evict_all(self, cache: Residency) -> int:
        count = 0
        while (victim := cache.evict_one()) is not None:
            self._free(victim)
            count += 1
        return count

    def _has_charged(self, entry: Entry, cache: Residency, size_bytes: int) -> bool:
        self._check(cache, size_bytes)
        has_holder = bool(entry.users or entry.pins)
        done, victims = cache.charge(entry, size_bytes, can_wait=has_holder)
        for victim in victims:
            self._free(victim)
        if not done and not has_holder:
            raise Abandoned("there is no room for it now, and no request waits for it")
        return done

    def _check(self, cache: Residency, size_bytes: int) -> None:
        if self._closed:
            raise Draining("the server is going down")
        left = cache.capacity_bytes - cache.pinned_bytes
        if size_bytes > left:
            raise AdapterTooLarge(
                f"the adapter takes {size_bytes} bytes; {cache.capacity_bytes} are set aside, "
                f"{cache.pinned_bytes} of them for pinned adapters"
            )

    def _new_bank(self, layout: Layout, layers: Mapping[str, Coefficients] | None) -> Bank:
        slots = _first_slots(layout, self._basis_cache.device.type)
        bank = Bank(layout, self._basis_cache, slots, layers)
        self._banks.check_size(bank)
        with self._room:
            while not self._banks.has_room(bank):
                self._evict_or_wait()
            self._banks.add(bank)
        return bank

    def _evict_or_wait(self) -> None:
        """Evict one factored adapter, or wait until a lease on one may have been given back."""
        cache = self._caches["factored"]
        victim = cache.evict_one()
        if victim is not None:
            self._free(victim)
            return
        if self._closed:
            raise Draining("the server is going down")
        cache.retire_one()
        comes_free = self._banks.are_held or cache.leaving
        if not comes_free and not any(e.is_charged and not e.pins for e in cache.entries.values()):
            raise AdapterTooLarge("the bases of pinned adapters leave no room for this one's")
        self._wait_for_room()

    def _wait_for_room(self) -> None:
        self._num_waiting += 1
        try:
            self._room.wait()
        finally:
            self._num_waiting -= 1

    def _free(self, victim: Entry) -> None:
        """Give back an evicted entry's memory; coefficients go to the host's."""
        payload, victim.payload = victim.payload, None
        if isinstance(payload, Merged):
            self._old |= payload.weights
            return
        assert isinstance(payload, Factored)
        bank = payload.bank
        # Merged weights would have to be kept with the row; they are made of the file again.
        if not payload.weights and self._host.capacity_bytes >= bank.row_bytes:
            method = next(iter(bank.layout.parts.values())).method.name
            row, head = bank.row(payload.slot), in_host_memory(payload.head)
            self._host.put(victim.digest, HostCopy(bank.layout, row, method, head))
        bank.remove(payload.slot)
        self._banks.drop_if_empty(bank)


def _first_slots(layout: Layout, device_type: str) -> int:
    """Return how many slots a bank begins with; on a GPU, growth ends recorded steps."""
    fitting = _FIRST_BYTES // max(1, 4 * layout.width)
    return 4 if device_type == "cpu" else min(max(4, fitting), _MOST_FIRST_SLOTS)


def _stats(name: str, count: int, cache: Residency | HostCache) -> CacheStats:
    return CacheStats(name, count, cache.used_bytes, cache.hits, cache.misses, cache.evictions)
