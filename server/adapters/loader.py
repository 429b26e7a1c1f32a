"""Bring adapters from their blobs into memory, beside the running batch, each once.

The books are residency.py's, files and tensors materializer.py's; here are threads and waiting.
Bytes are charged before they are allocated. A load that finds no room waits in line until running
sequences give some up; one that nobody waits for gives up itself. What leaves the device's memory
stays in the host's as long as that has room (host_cache.py).
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from adapters_core.base import BaseSpec
from adapters_core.bases import Bases
from adapters_core.heads import in_host_memory
from adapters_core.inject import Injection
from server.adapters.banks import Banks
from server.adapters.host_cache import HostCopy, HostTier
from server.adapters.materializer import BlobPaths, Bringer
from server.adapters.modes import Mode
from server.adapters.payload import Factored, Merged
from server.adapters.residency import Entry, Residency
from server.errors import AdapterTooLarge, Draining
from server.telemetry.observer import CacheStats, LoadStats, Observer

_LOG = logging.getLogger("overtone.loader")
_NAMES: dict[Mode, str] = {"factored": "coefficients", "merged": "merged"}
_NICENESS = 10


class _Forsaken(Exception):
    """There is no room just now, and nobody waits for this load any more."""


class Loader:
    """Adapters in memory, by digest and mode.

    Args:
        open_blob: digest -> paths of its files; raises if the blob is gone.
        spec, injection, bases: the resident base.
        coefficient_bytes, merged_bytes: capacity of the two caches.
        basis_bytes: what the bases of all banks may take together.
        on_change: called from a loader's thread whenever an entry became ready or failed.
        host_bytes: capacity of the host's copies of evicted adapters.
    """

    def __init__(
        self,
        open_blob: Callable[[str], BlobPaths],
        spec: BaseSpec,
        injection: Injection,
        bases: Bases,
        coefficient_bytes: int,
        basis_bytes: int,
        merged_bytes: int,
        observer: Observer,
        on_change: Callable[[Entry], None],
        host_bytes: int = 0,
    ) -> None:
        self._caches: dict[Mode, Residency] = {
            "factored": Residency(coefficient_bytes),
            "merged": Residency(merged_bytes),
        }
        self._host = HostTier(host_bytes)
        self._room = threading.Condition()
        self._banks = Banks(bases, basis_bytes, self._room, self._evict_or_wait)
        self._bringer = Bringer(open_blob, spec, injection, bases, self._banks, self._take_copy)
        self._old: dict[str, Tensor] = {}  # evicted merged weights, to be written over
        self._waiters: dict[Entry, list[Callable[[], None]]] = {}
        self._observer = observer
        self._on_change = on_change
        self._closed = False
        # Each cache has its own threads: loads that wait for one's room hold up none of the other.
        self._threads: dict[Mode, ThreadPoolExecutor] = {
            "factored": ThreadPoolExecutor(2, thread_name_prefix="overtone-factored"),
            "merged": ThreadPoolExecutor(
                2, thread_name_prefix="overtone-merged", initializer=_stand_back
            ),
        }

    def acquire(self, digest: str, mode: Mode) -> Entry:
        """Return a lease of the adapter; it becomes ready later if it is not in memory.

        Raises:
            Draining: the server is going down.
        """
        with self._room:
            if self._closed:
                raise Draining("the server is going down; send the request to another one")
            entry, is_new = self._caches[mode].acquire((digest, mode))
            if is_new:
                self._threads[mode].submit(self._load, entry, digest, mode)
        self._tell(mode)
        return entry

    def acquire_ready(self, digest: str, mode: Mode) -> Entry | None:
        """Return a lease if the adapter is in memory in this mode; loads nothing."""
        with self._room:
            cache = self._caches[mode]
            found = cache.ready((digest, mode))
            if found is not None:
                cache.acquire(found.key)
        if found is not None:
            self._tell(mode)
        return found

    def peek(self, digest: str, mode: Mode) -> Entry | None:
        """Return the entry if it is ready in memory, without a lease: to look at, not to use."""
        with self._room:
            return self._caches[mode].ready((digest, mode))

    def prefetch(self, digest: str, mode: Mode) -> None:
        """Begin to load an adapter that nobody waits for; it gives up where it finds no room."""
        self.release(self.acquire(digest, mode))

    def release(self, entry: Entry) -> None:
        """Give a lease back; safe for an entry that failed."""
        with self._room:
            if self._cache_of(entry).release(entry):
                self._free(entry)
            self._room.notify_all()

    def when_done(self, entry: Entry, tell: Callable[[], None]) -> None:
        """Call `tell` once the entry is ready or has failed; at once if it is so already."""
        with self._room:
            if not entry.is_ready and entry.error is None:
                self._waiters.setdefault(entry, []).append(tell)
                return
        tell()

    def prefer(self, digests: Collection[str]) -> None:
        """Evict the merged weights of these adapters last."""
        with self._room:
            self._caches["merged"].wanted = frozenset((digest, "merged") for digest in digests)

    def pin(self, entry: Entry) -> bool:
        """Keep a leased entry in memory when the lease is given back; False if it is leaving."""
        with self._room:
            if not entry.is_leaving:
                self._cache_of(entry).pin(entry)
            return not entry.is_leaving

    def unpin(self, entry: Entry) -> None:
        """Let an entry go again; those that wait for room may take it."""
        with self._room:
            self._cache_of(entry).unpin(entry)
            self._room.notify_all()

    def pinned_bytes(self, mode: Mode) -> tuple[int, int]:
        """Return the bytes that are pinned in a cache, and the cache's capacity."""
        with self._room:
            return self._caches[mode].pinned_bytes, self._caches[mode].capacity_bytes

    def is_resident(self, digest: str) -> list[Mode]:
        """Return the modes in which the adapter is in memory."""
        with self._room:
            return [m for m, cache in self._caches.items() if cache.contains((digest, m))]

    def close(self) -> None:
        """End the threads; loads that wait for room fail."""
        with self._room:
            self._closed = True
            self._room.notify_all()
        for threads in self._threads.values():
            threads.shutdown(cancel_futures=True)

    def _load(self, entry: Entry, digest: str, mode: Mode) -> None:
        try:
            self._bring(entry, digest, mode)
        except Exception as error:
            level = logging.DEBUG if isinstance(error, _Forsaken) else logging.WARNING
            _LOG.log(level, "adapter %s could not be loaded: %s", digest, error)
            with self._room:
                entry.error = error
                self._cache_of(entry).drop(entry)
        with self._room:
            waiters = self._waiters.pop(entry, [])
            self._room.notify_all()  # what nobody holds any more can make room from here on
        self._tell(mode)
        for tell in waiters:
            tell()
        self._on_change(entry)

    def _bring(self, entry: Entry, digest: str, mode: Mode) -> None:
        started = time.perf_counter()
        brought = self._bringer.bring(digest, mode, lambda size: self._charge(entry, size))
        entry.payload = brought.payload
        seconds = time.perf_counter() - started
        self._observer.on_load(LoadStats(brought.method, seconds, brought.materialise_s))

    def _charge(self, entry: Entry, size_bytes: int) -> dict[str, Tensor]:
        """Account for the bytes, evicting what is not in use, or wait until that helps.

        Returns the evicted merged weights: nobody reads them any more, their memory is free.
        """
        cache = self._cache_of(entry)
        with self._room:
            while True:
                self._check(cache, size_bytes)
                is_wanted = bool(entry.users or entry.pins)
                done, victims = cache.charge(entry, size_bytes, can_wait=is_wanted)
                for victim in victims:
                    self._free(victim)
                if done:
                    break
                if not is_wanted:
                    raise _Forsaken("there is no room for it now, and nobody waits for it")
                self._room.wait()
            if cache is not self._caches["merged"]:
                return {}
            old, self._old = self._old, {}
            return old

    def _check(self, cache: Residency, size_bytes: int) -> None:
        if self._closed:
            raise Draining("the server is going down")
        left = cache.capacity_bytes - cache.pinned_bytes
        if size_bytes > left:
            raise AdapterTooLarge(
                f"the adapter takes {size_bytes} bytes; {cache.capacity_bytes} are set aside, "
                f"{cache.pinned_bytes} of them for pinned adapters"
            )

    def _take_copy(self, digest: str) -> HostCopy | None:
        with self._room:
            return self._host.take(digest)

    def _evict_or_wait(self, is_loading: bool) -> None:
        """Make an adapter's bank smaller by one, now or when one is given back."""
        cache = self._caches["factored"]
        victim = cache.evict_one()
        if victim is not None:
            self._free(victim)
            return
        if self._closed:
            raise Draining("the server is going down")
        cache.retire_one()
        if (
            not is_loading
            and not cache.leaving
            and not any(e.is_charged and not e.pins for e in cache.entries.values())
        ):
            raise AdapterTooLarge("the bases of pinned adapters leave no room for this one's")
        self._room.wait()

    def _free(self, victim: Entry) -> None:
        """Give back an evicted entry's memory; coefficients go to the host's."""
        payload, victim.payload = victim.payload, None
        if isinstance(payload, Merged):
            self._old |= payload.weights
            return
        assert isinstance(payload, Factored)
        bank = payload.bank
        if self._host.capacity_bytes >= bank.row_bytes:
            method = next(iter(bank.layout.parts.values())).method.name
            row, head = bank.row(payload.slot), in_host_memory(payload.head)
            self._host.put(_digest_of(victim), HostCopy(bank.layout, row, method, head))
        bank.remove(payload.slot)
        self._banks.drop_if_empty(bank)

    def _cache_of(self, entry: Entry) -> Residency:
        assert isinstance(entry.key, tuple)
        return self._caches[entry.key[1]]

    def _tell(self, mode: Mode) -> None:
        with self._room:
            told = [_stats(_NAMES[mode], self._caches[mode])]
            if mode == "factored":
                told.append(_stats("host", self._host))
        for stats in told:
            self._observer.on_cache(stats)


def _stats(name: str, cache: Residency | HostTier) -> CacheStats:
    count = len(cache.copies) if isinstance(cache, HostTier) else len(cache.entries)
    return CacheStats(name, count, cache.used_bytes, cache.hits, cache.misses, cache.evictions)


def _digest_of(entry: Entry) -> str:
    assert isinstance(entry.key, tuple)
    digest: str = entry.key[0]
    return digest


def _stand_back() -> None:
    """Let this thread compute where the engine leaves the processor free (Linux)."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
    except (AttributeError, OSError):
        _LOG.debug("this system has no priorities for threads")
