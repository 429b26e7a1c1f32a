"""The thread that accepts requests and computes them in batches: engine and encoder share it."""

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server.errors import Draining
from server.scheduling.admission import OpenRequests, Quota

_LOG = logging.getLogger("overtone.runtime")


class BatchThread(ABC):
    """Computes batch after batch until it is stopped.

    What a batch is made of changes on this thread only: other threads post actions to its inbox.

    Args:
        name: of the thread.
        open_requests: counts what was accepted and is not over; guarded here.
        begin: called by the thread before its first batch.
    """

    def __init__(
        self, name: str, open_requests: OpenRequests, begin: Callable[[], None] = lambda: None
    ) -> None:
        self._open = open_requests
        self._num_apart = 0  # accepted and not over, beside those: the background's
        self._inbox: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._draining = False
        self._stopping = False
        self._begin, self._begun = begin, threading.Event()
        self._waits = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread, and return once it is ready to compute."""
        self._thread.start()
        self._begun.wait()

    def wake(self) -> None:
        """Look for work again: an adapter has become ready or has failed."""
        self._wake.set()

    def drain(self) -> None:
        """Accept nothing new; what is open goes on."""
        with self._lock:
            self._draining = True

    def stop(self, timeout_s: float = 30.0) -> None:
        """Drain, let open requests end for up to `timeout_s`, fail the rest, end the thread."""
        self.drain()
        deadline = time.monotonic() + timeout_s
        while self.num_open and time.monotonic() < deadline and self._thread.is_alive():
            self._thread.join(0.02)
        self._stopping = True
        self._wake.set()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    @property
    def is_idle(self) -> bool:
        """Return whether the thread waits for something to compute."""
        return self._waits

    @property
    def num_open(self) -> int:
        """Return how many sequences or inputs were accepted and are not over."""
        return self._open.total + self._num_apart

    def quota(self, tenant: str) -> Quota:
        """Return how much of its queue a tenant has used."""
        with self._lock:
            return self._open.quota(tenant, time.monotonic())

    @abstractmethod
    def _turn(self) -> None:
        """Compute one batch, or wait until there is something to do."""

    @abstractmethod
    def _end_accepted(self, error: Exception) -> None:
        """End every request that has come out of the inbox, with `error`."""

    @contextmanager
    def _counted(self, tenant: str, count: int = 1) -> Iterator[int]:
        """Count `count` more as open, for good unless the block raises; yield the number before.

        Raises:
            Overloaded: too many of the tenant's are open.
            Draining: the server is going down.
        """
        with self._lock:
            self._check_accepting()
            self._open.begin(tenant, time.monotonic(), count)
            num_before = self._open.total - count
        try:
            yield num_before
        except Exception:
            self._uncount(tenant, count)
            self._wake.set()  # the thread's end may wait for this one to come to the inbox
            raise

    @contextmanager
    def _counted_apart(self, count: int = 1) -> Iterator[None]:
        """Count `count` more of the background, likewise; its sender bounds how many are open.

        Raises:
            Draining: the server is going down.
        """
        with self._lock:
            self._check_accepting()
            self._num_apart += count
        try:
            yield
        except Exception:
            self._uncount_apart(count)
            self._wake.set()
            raise

    def _check_accepting(self) -> None:
        if self._draining:
            raise Draining("the server is going down; send the request to another one")

    def _uncount_apart(self, count: int = 1) -> None:
        with self._lock:
            self._num_apart -= count

    def _uncount(self, tenant: str, count: int = 1) -> None:
        with self._lock:
            self._open.end(tenant, time.monotonic(), count)

    def _post(self, action: Callable[[], None]) -> None:
        """Have the thread do something before its next batch; from any thread."""
        self._inbox.append(action)
        self._wake.set()

    def _wait(self, seconds: float | None) -> None:
        """Wait until there may be something to do, for so long at most."""
        self._waits = True
        try:
            self._wake.wait(seconds)
        finally:
            self._waits = False

    def _read_inbox(self) -> None:
        self._wake.clear()
        while self._inbox:
            self._inbox.popleft()()

    def _run(self) -> None:
        try:
            try:
                self._begin()
            finally:
                self._begun.set()
            while not self._stopping:
                self._turn()
        except Exception:
            _LOG.exception("the thread %s has failed", self._thread.name)
        finally:
            self.drain()
            self._end_all()

    def _end_all(self) -> None:
        """Fail what is open; what was counted as open may still be on its way to the inbox."""
        while self.num_open:
            self._read_inbox()
            self._end_accepted(Draining("the server went down"))
            if self.num_open:
                self._wake.wait()
