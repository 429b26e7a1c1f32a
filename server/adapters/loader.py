"""Loads adapters from their blobs into memory on threads of its own, each once.

The running batch goes on meanwhile. memory.py keeps the books, materializer.py reads files and
makes tensors; here are the threads, and the callbacks when a load is over.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from adapters_core.errors import BasisPending
from adapters_core.layers.merge_threads import MergeThreads
from registry import BlobDamaged, BlobMissing, BlobPaths
from server.adapters.materializer import Materialized, Materializer
from server.adapters.memory import Abandoned, Capacities, DeviceMemory
from server.adapters.modes import Mode
from server.adapters.out_of_memory import is_out_of_memory
from server.adapters.residency import Entry
from server.base.resident import ResidentBase
from server.errors import OutOfMemory
from server.telemetry.observer import LoadFault, LoadStats, Observer

_LOG = logging.getLogger("overtone.loader")
_NICENESS = 10


class Loader:
    """Adapters in memory, by digest and mode.

    Args:
        open_blob: digest -> paths of its files, held against it; raises if the blob is gone.
        base: that the adapters are for.
        capacities: of the memory, which is `self.memory`.
        observer: receives statistics of loads and caches.
        on_change: called from a loader's thread whenever an entry became ready or failed.
        is_idle: whether no step runs, so that a merge may use the other cores.
    """

    def __init__(
        self,
        open_blob: Callable[[str], BlobPaths],
        base: ResidentBase,
        capacities: Capacities,
        observer: Observer,
        on_change: Callable[[Entry], None],
        is_idle: Callable[[], bool] = lambda: False,
    ) -> None:
        self.memory = DeviceMemory(capacities, base.basis_cache)
        self._merge_threads = MergeThreads(is_idle, _lower_priority)
        self._materializer = Materializer(open_blob, base, self.memory, self._merge_threads)
        self._observer = observer
        self._on_change = on_change
        #: Guards the callbacks, and that no load is submitted to threads that have ended.
        self._lock = threading.Lock()
        self._callbacks: dict[Entry, list[Callable[[], None]]] = {}
        # Each cache has its own threads: loads that wait for one's room hold up none of the other.
        self._threads: dict[Mode, ThreadPoolExecutor] = {
            "factored": ThreadPoolExecutor(2, thread_name_prefix="overtone-factored"),
            "merged": ThreadPoolExecutor(
                2, thread_name_prefix="overtone-merged", initializer=_lower_priority
            ),
        }

    def acquire(self, digest: str, mode: Mode) -> Entry:
        """Return a lease of the adapter; it becomes ready later if it is not in memory.

        Raises:
            Draining: the server is going down.
        """
        with self._lock:
            entry, is_new = self.memory.acquire(digest, mode)
            if is_new:
                self._threads[mode].submit(self._load, entry)
        self._observe(mode)
        return entry

    def acquire_ready(self, digest: str, mode: Mode) -> Entry | None:
        """Return a lease if the adapter is in memory in this mode; loads nothing."""
        found = self.memory.acquire_ready(digest, mode)
        if found is not None:
            self._observe(mode)
        return found

    def prefetch(self, digest: str, mode: Mode) -> None:
        """Begin to load an adapter without a lease; the load ends where it finds no room."""
        self.release(self.acquire(digest, mode))

    def release(self, entry: Entry) -> None:
        """Give a lease back; safe for an entry that failed."""
        self.memory.release(entry)

    def when_done(self, entry: Entry, callback: Callable[[], None]) -> None:
        """Call `callback` once the entry is ready or has failed; at once if it is so already."""
        with self._lock:
            if not entry.is_ready and entry.error is None:
                self._callbacks.setdefault(entry, []).append(callback)
                return
        callback()

    def close(self) -> None:
        """End the threads; loads that wait for room fail."""
        with self._lock:
            self.memory.close()
        for threads in self._threads.values():
            threads.shutdown(cancel_futures=True)
        self._merge_threads.close()

    def _load(self, entry: Entry) -> None:
        error = None
        try:
            self._materialize(entry)
        except Exception as caught:
            error = caught
            self._report(entry, error)
        self.memory.end_load(entry, error)
        with self._lock:
            callbacks = self._callbacks.pop(entry, [])
        self._observe(entry.mode)
        for callback in callbacks:
            callback()
        self._on_change(entry)

    def _report(self, entry: Entry, error: Exception) -> None:
        """Count and log a load that failed; one that was given up, or waits, is no fault."""
        is_fault = not isinstance(error, Abandoned | BasisPending)
        if is_fault:
            self._observer.on_load_failed(_fault_of(error))
        level = logging.WARNING if is_fault else logging.DEBUG
        _LOG.log(level, "adapter %s could not be loaded: %s", entry.digest, error)

    def _materialize(self, entry: Entry) -> None:
        started = time.perf_counter()
        made = self._made(entry)
        entry.ready_at = time.monotonic()
        entry.payload = made.payload
        seconds = time.perf_counter() - started
        self._observer.on_load(LoadStats(made.method, seconds, made.materialise_s))

    def _made(self, entry: Entry) -> Materialized:
        """Return what an entry holds; where memory runs out, once more after making room.

        Raises:
            OutOfMemory: there was no room the second time either.
        """
        try:
            return self._materializer.materialize(entry)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        self.memory.refund(entry)
        self.memory.make_room()
        try:
            return self._materializer.materialize(entry)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            message = f"there is no memory for adapter {entry.digest} now; try again"
            raise OutOfMemory(message) from error

    def _observe(self, mode: Mode) -> None:
        for stats in self.memory.stats(mode):
            self._observer.on_cache(stats)


def _fault_of(error: Exception) -> LoadFault:
    if isinstance(error, BlobDamaged):
        return "damaged"
    return "missing" if isinstance(error, BlobMissing) else "other"


def _lower_priority() -> None:
    """Give this thread the processor's time that the engine's leaves (Linux)."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
    except (AttributeError, OSError):
        _LOG.debug("this system has no priorities for threads")
