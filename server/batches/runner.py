"""The thread that runs this server's batches: finds, claims and ends them.

Several servers of one base share its batches: each batch has one owner at a time, and goes on at
another server when its own is silent (registry/common/silence.py). The thread has an event loop of
its own, so that the work of batches holds up no live request's.
"""

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from registry import (
    BatchClaims,
    BatchNotFound,
    BatchRecord,
    RegistryError,
    RegistryUnavailable,
)
from registry.common.silence import Silence
from server.batches.run import BatchRun
from server.service import Service

_LOG = logging.getLogger("overtone.batches")
#: Batches that run at a time, of different tenants: they take turns in the engine.
_AT_ONCE = 8
_POLL_S = 1.0
#: Between heartbeats, with which a batch's counts go along.
_BEAT_S = 1.0
#: How often it is looked whether the server stops.
_TICK_S = 0.1
#: Threads for tokenizing, for disk and registry, and for heartbeats: results of a gigabyte are
#: written for longer than a batch may be silent.
_THREADS = 2


class BatchRunner:
    """Runs batches from `start` to `close`.

    Args:
        service: that answers.
        is_stopping: whether the server goes down; polled.
    """

    def __init__(self, service: Service, is_stopping: Callable[[], bool]) -> None:
        self._service, self._is_stopping = service, is_stopping
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        settings = service.settings
        self._beat_s = min(_BEAT_S, settings.batch_lost_after_s / 6)
        self._poll_s = min(_POLL_S, settings.batch_lost_after_s / 6)
        self._width = settings.max_running + settings.max_running // 2 + 1
        self._silence = Silence(settings.batch_lost_after_s)
        self._runs: dict[str, tuple[BatchRun, asyncio.Task[None]]] = {}
        self._closing = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._main, name="overtone-batches", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Look for batches, and whether to go on with them, at once; from any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._look)

    def close(self) -> None:
        """Stop: what is open is given up and run again later, what is answered is kept."""
        self._closing.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join()

    def _main(self) -> None:
        with _threads("io") as self._io, _threads("beats") as self._beats:
            try:
                asyncio.run(self._serve())
            except Exception:
                _LOG.exception("this server runs no more batches")

    async def _serve(self) -> None:
        self._loop, self._woken = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_default_executor(_threads("text"))
        is_tidy, looked = False, -self._poll_s
        while not self._closing.is_set() and not self._is_stopping():
            if time.monotonic() - looked >= self._poll_s or self._woken.is_set():
                self._woken.clear()
                try:
                    is_tidy = is_tidy or await self._beside(self._tidy)
                    await self._claim()
                except RegistryUnavailable:
                    pass  # the log of the mirror of names says so
                except (RegistryError, OSError) as error:
                    _LOG.warning("no batch can be taken now: %s", error)
                looked = time.monotonic()
            await self._pause()
        for run, _ in self._runs.values():
            run.stop("stopping")
        await asyncio.gather(*(task for _, task in self._runs.values()))

    async def _pause(self) -> None:
        assert self._woken is not None
        try:
            async with asyncio.timeout(_TICK_S):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _claim(self) -> None:
        """Claim what is free, or was its server's that is silent, and run it."""
        found = await self._beside(self._claims.open, self._base_name)
        at = time.monotonic()
        self._silence.begin(at)
        silent = {one.id for one in self._silence.stale(found, at)}
        self._silence.end(at)
        for record in found:
            is_free = not record.owner or record.id in silent
            if is_free and record.id not in self._runs and self._may_run(record):
                await self._take(record)

    def _may_run(self, record: BatchRecord) -> bool:
        """Return whether one more runs here; what only has to end always does."""
        if record.state == "cancelling" or time.time() >= record.expires_at:
            return True
        tenants = {run.held.spec.created_by for run, _ in self._runs.values()}
        return len(self._runs) < _AT_ONCE and record.spec.created_by not in tenants

    async def _take(self, record: BatchRecord) -> None:
        held = await self._beside(self._claims.claim, record, self._owner)
        if held is None:
            return
        _LOG.info("%s runs here, attempt %d, %s", held.id, held.fence, held.counts)
        beats = partial(asyncio.get_running_loop().run_in_executor, self._beats)
        run = BatchRun(self._service, held, self._width, self._beat_s, self._beside, beats)
        task = asyncio.create_task(run.run())
        self._runs[held.id] = run, task
        task.add_done_callback(lambda _: self._forget(held.id))

    def _forget(self, batch_id: str) -> None:
        del self._runs[batch_id]
        self._look()

    def _look(self) -> None:
        if self._woken is not None:
            self._woken.set()
        for run, _ in self._runs.values():
            run.look()

    def _tidy(self) -> bool:
        """Remove the folders that a crash left of batches that are over."""
        registry = self._service.registry
        for id_, _ in registry.batch_folders.all():
            try:
                if registry.batches.get(id_).is_final:
                    registry.batch_folders.remove(id_)
            except BatchNotFound:
                continue  # `overtone gc` lists it
        return True

    @property
    def _claims(self) -> BatchClaims:
        return self._service.registry.batch_claims

    @property
    def _base_name(self) -> str:
        return self._service.base.spec.name

    def _beside(self, function: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        """Run what blocks on a thread."""
        return asyncio.get_running_loop().run_in_executor(self._io, function, *args)


def _threads(name: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix=f"overtone-batches-{name}")
