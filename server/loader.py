"""Bring adapters from their blobs into memory, beside the running batch, each once.

The books are residency.py's; here are the threads, the files and the tensors. Bytes are charged
before they are allocated. A load that finds no room waits until a running sequence gives some up.
"""

import logging
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from torch import Tensor

from adapters_core.adapter import Adapter, read_adapter
from adapters_core.bank import Bank, Layout
from adapters_core.base import BaseSpec
from adapters_core.bases import Bases
from adapters_core.inject import Injection
from adapters_core.merge import materialise, merged_bytes
from server.batch import Factored, Merged
from server.errors import AdapterTooLarge, Draining
from server.observer import CacheStats, LoadStats, Observer
from server.planner import Mode
from server.residency import Entry, Residency

_LOG = logging.getLogger("overtone.loader")


class BlobPaths(Protocol):
    """Where a blob's two files lie."""

    @property
    def file(self) -> Path:
        """Return the path of the coefficient file."""

    @property
    def config(self) -> Path:
        """Return the path of its config."""


class Loader:
    """Adapters in memory, by digest and mode.

    Args:
        open_blob: digest -> paths of its files; raises if the blob is gone.
        spec, injection, bases: the resident base.
        coefficient_bytes, merged_bytes: capacity of the two caches.
        basis_bytes: what the bases of all banks may take together: a file of two kilobytes may
            name a seed that gives megabytes.
        on_change: called from a loader's thread whenever an entry became ready or failed.
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
    ) -> None:
        self._open_blob = open_blob
        self._spec = spec
        self._injection = injection
        self._bases = bases
        self._caches: dict[Mode, Residency] = {
            "factored": Residency(coefficient_bytes),
            "merged": Residency(merged_bytes),
        }
        self._basis_bytes = basis_bytes
        self._banks: dict[Hashable, Bank] = {}
        self._observer = observer
        self._on_change = on_change
        self._room = threading.Condition()
        self._closed = False
        # Each cache has its own threads: loads that wait for one's room hold up none of the other.
        self._threads: dict[Mode, ThreadPoolExecutor] = {
            mode: ThreadPoolExecutor(2, thread_name_prefix=f"overtone-{mode}")
            for mode in self._caches
        }

    def acquire(self, digest: str, mode: Mode) -> Entry:
        """Return a lease of the adapter; it becomes ready later if it is not in memory."""
        with self._room:
            entry, is_new = self._caches[mode].acquire((digest, mode))
        if is_new:
            self._threads[mode].submit(self._load, entry, digest, mode)
        self._tell(mode)
        return entry

    def release(self, entry: Entry) -> None:
        """Give a lease back; safe for an entry that failed."""
        with self._room:
            self._cache_of(entry).release(entry)
            self._room.notify_all()

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
            _LOG.warning("adapter %s could not be loaded: %s", digest, error)
            with self._room:
                entry.error = error
                self._cache_of(entry).drop(entry)
        with self._room:
            self._room.notify_all()  # what nobody holds any more can make room from here on
        self._tell(mode)
        self._on_change(entry)

    def _bring(self, entry: Entry, digest: str, mode: Mode) -> None:
        started = time.perf_counter()
        blob = self._open_blob(digest)
        adapter = read_adapter(blob.file, blob.config.read_bytes(), self._spec)
        materialise_s = None
        if mode == "merged":
            linears = self._injection.linears
            old = self._charge(entry, merged_bytes(adapter.methods, linears))
            begun = time.perf_counter()
            weights = materialise(adapter.methods, adapter.layers, linears, self._bases, old)
            materialise_s = time.perf_counter() - begun
            entry.payload = Merged(weights)
        else:
            bank = self._bank_of(adapter)
            self._charge(entry, bank.row_bytes)
            entry.payload = Factored(bank, bank.add(bank.pack(adapter.methods, adapter.layers)))
        seconds = time.perf_counter() - started
        self._observer.on_load(LoadStats(adapter.description.method, seconds, materialise_s))

    def _bank_of(self, adapter: Adapter) -> Bank:
        layout = Layout.of(adapter.methods, self._spec.targets)
        with self._room:
            bank = self._banks.get(layout.key)
        if bank is not None:
            return bank
        bank = Bank(layout, self._bases, layers=adapter.layers)
        with self._room:
            kept = self._banks.setdefault(layout.key, bank)
            if kept is bank:
                self._bound_bases(bank)
        return kept

    def _bound_bases(self, newest: Bank) -> None:
        """Evict adapters until the bases of the banks that are left are within their bytes."""
        alone = sum(newest.basis_memory.values())
        if alone > self._basis_bytes:
            del self._banks[newest.layout.key]
            raise AdapterTooLarge(
                f"the adapter's bases take {alone} bytes; {self._basis_bytes} are set aside"
            )
        cache = self._caches["factored"]
        while self._bases_in_use() > self._basis_bytes:
            victim = cache.evict_one()
            if victim is not None:
                self._free(victim)
            elif self._closed:
                raise Draining("the server is going down")
            else:
                self._room.wait()

    def _bases_in_use(self) -> int:
        memory: dict[int, int] = {}
        for bank in self._banks.values():
            memory |= bank.basis_memory
        return sum(memory.values())

    def _charge(self, entry: Entry, size_bytes: int) -> dict[str, Tensor]:
        """Account for the bytes, evicting what is not in use, or wait until that helps.

        Returns the evicted merged weights: nobody reads them any more, their memory is free.
        """
        cache = self._cache_of(entry)
        if size_bytes > cache.capacity_bytes:
            raise AdapterTooLarge(
                f"the adapter takes {size_bytes} bytes; {cache.capacity_bytes} are set aside"
            )
        with self._room:
            while (victims := cache.charge(entry, size_bytes)) is None:
                if self._closed:
                    raise Draining("the server is going down")
                self._room.wait()
            old: dict[str, Tensor] = {}
            for victim in victims:
                if isinstance(victim.payload, Merged):
                    old |= victim.payload.weights
                self._free(victim)
        return old

    def _free(self, victim: Entry) -> None:
        """Give back an evicted entry's memory; an empty bank goes as a whole.

        A load that already holds that bank still uses it, alone.
        """
        if isinstance(victim.payload, Factored):
            bank = victim.payload.bank
            bank.remove(victim.payload.slot)
            if bank.is_empty:
                self._banks.pop(bank.layout.key, None)
        victim.payload = None

    def _cache_of(self, entry: Entry) -> Residency:
        assert isinstance(entry.key, tuple)
        return self._caches[entry.key[1]]

    def _tell(self, mode: Mode) -> None:
        with self._room:
            c = self._caches[mode]
            stats = CacheStats(
                "coefficients" if mode == "factored" else "merged",
                len(c.entries),
                c.used_bytes,
                c.hits,
                c.misses,
                c.evictions,
            )
        self._observer.on_cache(stats)
