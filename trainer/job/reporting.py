"""Reports a running job's news to the registry, and reads there whether it is to go on.

One thread does both, ten times a second; the training itself never waits for the network. While
the registry is down the job trains on, and its news are sent later.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from registry.common.fence import Fence
from registry.errors import FenceLost, RegistryError, RegistryUnavailable
from registry.jobs import log as job_log
from registry.jobs.claims import Claims
from registry.jobs.record import HELD, State
from registry.jobs.samples import Samples, samples_entry
from trainer.interfaces import Reporter, Wanted
from trainer.job.journal import Journal
from trainer.process.retry import LAST_WAIT_S

log = logging.getLogger(__name__)

PERIOD_S = 0.1
MAX_BATCH = 500
#: Entries kept while the registry is down; then the oldest are dropped.
MAX_KEPT = 100_000


class Reporting(Reporter):
    """The reporter of one claim; a context manager that sends all news before it ends.

    Args:
        claims: of the registry.
        fence: of this claim.
        stop: set when this process is to end; the job then pauses.
        clock: seconds since 1970.
        heartbeat: called at each report and each question of the job.
    """

    def __init__(
        self,
        claims: Claims,
        fence: Fence,
        stop: threading.Event,
        clock: Callable[[], float] = time.time,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        self._claims, self._fence, self._stop, self._clock = claims, fence, stop, clock
        self._heartbeat = heartbeat
        self._lock = threading.Lock()  # guards the four below
        # Events and checkpoints are sent before all metrics, which may be many of earlier attempts:
        # a checkpoint resets the failure count, and must not arrive after the progress beyond it.
        self._news: deque[job_log.Entry] = deque(maxlen=MAX_KEPT)
        self._metrics: deque[job_log.Entry] = deque(maxlen=MAX_KEPT)
        self._progress: tuple[int, int, float | None] | None = None
        self._journal: Journal | None = None
        self._number = 0  # of the latest report
        self._state: State | None = "validating_files"
        self._is_valid = False  # as found by the job's process
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="job-reports", daemon=True)

    def keep_in(self, folder: Path) -> None:
        """Keep metrics in the job's folder, and send those of earlier attempts once more.

        The registry ignores those that it has.
        """
        self._journal = Journal(folder)
        for step, values in self._journal.read():
            self._keep(self._metrics, job_log.metrics_entry(step, values, self._clock()))

    @property
    def state(self) -> State | None:
        """The job's state in the latest answer of the registry."""
        return self._state

    def event(self, level: str, message: str, data: dict[str, Any] | None = None) -> None:
        self._keep(self._news, job_log.event_entry(level, message, data, self._clock()))

    def validated(self) -> None:
        self._heartbeat()
        self._is_valid = True

    def metrics(self, step: int, values: dict[str, float]) -> None:
        if self._journal is not None:
            self._journal.add(step, values)
        self._keep(self._metrics, job_log.metrics_entry(step, values, self._clock()))

    def checkpoint(self, step: int, name: str) -> None:
        self._keep(self._news, job_log.checkpoint_entry(step, name, self._clock()))

    def samples(self, given: Samples) -> None:
        self._keep(self._news, samples_entry(given))

    def progress(self, step: int, num_steps: int, seconds_left: float | None) -> None:
        self._heartbeat()
        with self._lock:  # only the latest is sent
            self._progress = step, num_steps, seconds_left

    def wanted(self) -> Wanted:
        self._heartbeat()
        is_held = self._state in HELD
        if self._state == "paused" or (is_held and self._stop.is_set()):
            return "pause"
        return "go" if is_held else "cancel"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Send the remaining news, waiting for the registry if it is down. Safe to call twice."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def _keep(self, queue: deque[job_log.Entry], entry: job_log.Entry) -> None:
        self._heartbeat()
        with self._lock:
            queue.append(entry)

    def _run(self) -> None:
        wait_s = PERIOD_S
        batch: list[job_log.Entry] = []
        never = threading.Event()
        while self._state is not None:
            ending = self._ending.wait(wait_s)
            batch = batch or self._take()
            try:
                self._send(batch)
                batch, wait_s = [], PERIOD_S
                if ending and not self._has_more():
                    return
            except RegistryUnavailable:
                wait_s = min(2 * wait_s, LAST_WAIT_S)
                if ending:  # the job is done and waits for these reports
                    self._heartbeat()
                    never.wait(wait_s)
            except RegistryError as error:  # the job's record was deleted: end the job
                log.error("%s", error)
                self._state = None

    def _take(self) -> list[job_log.Entry]:
        with self._lock:
            queues = (queue for queue in (self._news, self._metrics) for _ in range(len(queue)))
            batch = [queue.popleft() for queue in islice(queues, MAX_BATCH)]
            if self._progress is not None:
                batch.append(job_log.progress_entry(*self._progress))
                self._progress = None
            self._number += bool(batch)
            return batch

    def _has_more(self) -> bool:
        with self._lock:
            return bool(self._news or self._metrics) or self._progress is not None

    def _send(self, batch: list[job_log.Entry]) -> None:
        is_valid = self._is_valid  # read first: the report then holds all that led to it
        self._state = self._claims.report(self._fence, self._number if batch else None, batch)
        if is_valid and self._state == "validating_files":
            with suppress(FenceLost):  # the next report returns the state
                self._state = self._claims.validated(self._fence, now=self._clock()).state
