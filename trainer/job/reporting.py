"""A running job's news to the registry, and what the registry wants of it.

One thread sends and asks, ten times a second; the training itself never waits for the network. A
registry that is down is waited out: the job trains on, and what it had to say is said later.
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
from trainer.interfaces import Reporter, Wanted
from trainer.job.journal import Journal
from trainer.process.retry import LAST_WAIT_S

log = logging.getLogger(__name__)

PERIOD_S = 0.1
MAX_BATCH = 500
#: Entries kept while the registry is down; the oldest go first.
MAX_KEPT = 100_000


class Reporting(Reporter):
    """The reporter of one claim; a context manager that has said everything when it ends.

    Args:
        claims: of the registry.
        fence: of this claim.
        stop: set when this process is to end: the job is then to pause.
        clock: seconds since 1970.
        heartbeat: called whenever the job says or asks something: it gets on.
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
        # Words and checkpoints never wait behind the measurements of earlier attempts: a death is
        # forgiven if a checkpoint came before it, and progress must not be heard before that.
        self._news: deque[job_log.Entry] = deque(maxlen=MAX_KEPT)
        self._kept: deque[job_log.Entry] = deque(maxlen=MAX_KEPT)
        self._progress: tuple[int, int, float | None] | None = None
        self._journal: Journal | None = None
        self._number = 0  # of the latest report
        self._state: State | None = "validating_files"
        self._is_valid = False  # as the job's process says
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="job-reports", daemon=True)

    def keep_in(self, folder: Path) -> None:
        """Keep measurements in the job's folder, and say those of earlier attempts again.

        The registry takes only what it has not heard.
        """
        self._journal = Journal(folder)
        for step, values in self._journal.read():
            self._keep(self._kept, job_log.metrics_entry(step, values))

    @property
    def state(self) -> State | None:
        """The job's state as last heard."""
        return self._state

    def event(self, level: str, message: str, data: dict[str, Any] | None = None) -> None:
        """Take a line for people."""
        self._keep(self._news, job_log.event_entry(level, message, data, self._clock()))

    def validated(self) -> None:
        """Take that nothing is wrong with the job's words and files."""
        self._heartbeat()
        self._is_valid = True

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Take the numbers of a step."""
        if self._journal is not None:
            self._journal.add(step, values)
        self._keep(self._kept, job_log.metrics_entry(step, values))

    def checkpoint(self, step: int, name: str) -> None:
        """Take the name of a checkpoint that is complete on disk."""
        self._keep(self._news, job_log.checkpoint_entry(step, name, self._clock()))

    def progress(self, step: int, num_steps: int, seconds_left: float | None) -> None:
        """Take how far the job is; only the latest is ever sent."""
        self._heartbeat()
        with self._lock:
            self._progress = step, num_steps, seconds_left

    def wanted(self) -> Wanted:
        """Return what the job is to do, as heard at most a tenth of a second ago."""
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
        """Say what is left, waiting for the registry if need be. Safe to call twice."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def _keep(self, line: deque[job_log.Entry], entry: job_log.Entry) -> None:
        self._heartbeat()
        with self._lock:
            line.append(entry)

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
                if ending:  # the job is done and waits for this
                    self._heartbeat()
                    never.wait(wait_s)
            except RegistryError as error:  # the job's record is gone: nobody wants it any more
                log.error("%s", error)
                self._state = None

    def _take(self) -> list[job_log.Entry]:
        with self._lock:
            waiting = (line for line in (self._news, self._kept) for _ in range(len(line)))
            batch = [line.popleft() for line in islice(waiting, MAX_BATCH)]
            if self._progress is not None:
                batch.append(job_log.progress_entry(*self._progress))
                self._progress = None
            self._number += bool(batch)
            return batch

    def _has_more(self) -> bool:
        with self._lock:
            return bool(self._news or self._kept) or self._progress is not None

    def _send(self, batch: list[job_log.Entry]) -> None:
        is_valid = self._is_valid  # before the report, which says what was found
        self._state = self._claims.report(self._fence, self._number if batch else None, batch)
        if is_valid and self._state == "validating_files":
            with suppress(FenceLost):  # the next report says why
                self._state = self._claims.validated(self._fence, now=self._clock()).state
