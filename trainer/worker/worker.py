"""A worker: claims jobs of its base and runs each in a process of its own.

    take back stale claims · claim · start a process · send heartbeats · report how it ended

Any number of workers may share a registry; each runs one job at a time. When a worker dies, its
job's process is killed; another worker takes the job back, and it resumes from its last checkpoint.
On SIGTERM a worker lets its job write a checkpoint and gives it back.
"""

import logging
import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace

from adapters_core.gguf.conversion import local_base
from adapters_core.starting import check_base, check_device, check_folder
from registry.common.fence import Fence
from registry.connect import Registry, check_store, check_url, connect
from registry.errors import FenceLost, RegistryError, RegistryUnavailable
from registry.jobs.record import HELD, JobError, JobRecord
from registry.jobs.workers import WorkerRecord
from trainer.process.child_task import ChildTask
from trainer.process.job_cleanup import remove_finished_folders
from trainer.process.retry import Interrupted, until_available
from trainer.process.settings import WorkerSettings
from trainer.worker.job_process import JobProcess
from trainer.worker.stale_claims import StaleClaims

log = logging.getLogger(__name__)

POLL_S = 0.1
CLAIM_WAIT_S = 1
#: The longest wait for the registry to give a job back while the worker stops.
GIVE_BACK_S = 10.0


class Worker:
    """One worker; `run` returns after `stop`.

    Args:
        settings: its configuration.
        registry: open; the caller closes it.
    """

    def __init__(self, settings: WorkerSettings, registry: Registry) -> None:
        self._settings, self._registry, self._claims = settings, registry, registry.claims
        self._stale = StaleClaims(registry.claims, settings.base_name, settings.lost_after_s)
        self._next_check = 0.0
        self._has_cleaned_up = False  # the folders that killed processes left
        self._record = WorkerRecord(settings.name, settings.base_name, settings.device, time.time())
        self._stopping, self._hurrying = threading.Event(), threading.Event()

    def stop(self) -> None:
        """Stop after the job has been given back; at once if called again."""
        (self._hurrying if self._stopping.is_set() else self._stopping).set()

    def open(self) -> None:
        """Wait until the registry answers or the worker is to stop; then check the store.

        Raises:
            RegistryUnusable: the registry cannot be used, and waiting does not help.
            ForeignStore: the store belongs to another registry.
        """
        with suppress(Interrupted):
            until_available(lambda: self._registry.open_store(patience_s=0), self._stopping.wait)

    def run(self) -> None:
        """Work until stopped; in the main thread, whose end kills a job's process."""
        log.info("worker %s waits for jobs of %r", self._settings.name, self._settings.base_name)
        while not self._stopping.is_set():
            try:
                job = until_available(self._next, self._stopping.wait)
            except Interrupted:
                break
            except RegistryError:  # one corrupt record must not keep the worker from other jobs
                log.exception("the registry has a record that cannot be read; it is left out")
                self._stopping.wait(CLAIM_WAIT_S)
                continue
            if job is not None:
                self._record, self._next_check = replace(self._record, job=job.id), 0.0
                self._work(job)
                self._record, self._next_check = replace(self._record, job=None), 0.0
        with suppress(RegistryError):  # without this its entry expires a little later
            self._registry.workers.leave(self._record.name)

    def _next(self) -> JobRecord | None:
        settings = self._settings
        self._check_registry()
        return self._claims.take(settings.base_name, settings.name, CLAIM_WAIT_S, now=time.time())

    def _check_registry(self) -> None:
        """Now and then: send this worker's heartbeat, clean up, and take back stale claims."""
        at = time.monotonic()
        if at >= self._next_check:
            self._next_check = at + self._settings.lost_after_s / 6
            self._registry.workers.beat(self._record)
            if not self._has_cleaned_up:
                remove_finished_folders(self._registry)
                self._has_cleaned_up = True
            self._stale.take_back(at, time.time())

    def _work(self, job: JobRecord) -> None:
        log.info("%s: attempt %d of %r", job.id, job.attempts, job.spec.name)
        fence = Fence(job.id, job.fence)
        process = JobProcess(self._task(fence))
        try:
            self._supervise(process, fence)
        finally:
            process.kill()
        log.info("%s: its process ended with %s", job.id, process.ending)
        if process.code != 0:
            self._has_cleaned_up = False  # it may have left its folder
            self._report_death(process, fence)

    def _supervise(self, process: JobProcess, fence: Fence) -> None:
        """Send heartbeats until the process has ended; stop it if it is to end."""
        next_beat, end_at, holds = 0.0, float("inf"), True
        while not process.wait(POLL_S):
            at = time.monotonic()
            if at >= next_beat:
                next_beat = at + self._settings.beat_s
                holds = self._beat(fence)
            if end_at == float("inf") and (self._stopping.is_set() or not holds):
                end_at = at + self._settings.grace_s
                process.ask_to_stop()
            is_stalled = process.silent_s >= self._settings.stalled_after_s
            if at >= end_at or is_stalled or self._hurrying.is_set():
                process.kill()

    def _beat(self, fence: Fence) -> bool:
        """Return whether the job is to go on; it does while the registry is down."""
        try:
            state = self._claims.beat(fence)
            self._check_registry()
        except RegistryUnavailable as error:
            log.warning("%s: %s", fence.job, error)
            return True
        except RegistryError:
            log.exception("%s: the registry has a record that cannot be read", fence.job)
            return True
        # A process that has reported the end of its job cleans up, and ends by itself.
        return state in (*HELD, "succeeded", "failed")

    def _report_death(self, process: JobProcess, fence: Fence) -> None:
        """Report the end of a process that ended without a report of its own."""
        fault = _fault_of(process, self._settings.stalled_after_s)
        why = f"Given back by {self._settings.name}, which stops"

        def report() -> JobRecord:
            if self._stopping.is_set():
                return self._claims.give_back(fence, why, now=time.time())
            return self._claims.failed_attempt(fence, fault, now=time.time())

        give_up_at = time.monotonic() + GIVE_BACK_S

        def interrupted(wait_s: float) -> bool:
            is_late = self._stopping.is_set() and time.monotonic() >= give_up_at
            return self._hurrying.wait(wait_s) or is_late

        try:
            until_available(report, interrupted)
        except (FenceLost, Interrupted) as error:
            log.info("%s: %s", fence.job, error)

    def _task(self, fence: Fence) -> ChildTask:
        settings, server = self._settings, self._registry.server
        if server is not None:
            settings = settings.model_copy(update={"registry": server.url})
        return ChildTask(settings=settings, fence=fence, parent=os.getpid())


def _fault_of(process: JobProcess, stalled_after_s: float) -> JobError:
    """Return why a process ended that did not report it."""
    if process.silent_s >= stalled_after_s:
        return JobError(
            "process_stalled",
            f"the job's process made no progress for {stalled_after_s:g} s and was killed; the "
            "worker's --stalled-after is the limit",
        )
    return JobError("process_died", f"the job's process ended with {process.ending}")


def check(settings: WorkerSettings) -> None:
    """Check the settings before anything is loaded or claimed.

    Raises:
        CannotStart: the base, a device or a folder cannot be used here.
        InvalidArgument: the registry's or the store's address is malformed.
    """
    check_url(settings.registry)
    check_base(settings.base)
    for device in settings.devices:
        check_device(device)
    check_folder("data", settings.data)
    check_store(settings.store)


def with_local_base(settings: WorkerSettings) -> WorkerSettings:
    """Return the settings with a base that jobs can load: a GGUF file is converted.

    Raises:
        CannotStart: it cannot be.
    """
    return settings.model_copy(update={"base": local_base(settings.base, settings.data, log.info)})


def run_worker(settings: WorkerSettings) -> int:
    """Run a worker until SIGTERM or Ctrl-C; return the program's exit code.

    Raises:
        RegistryError: the registry's URL is wrong, the embedded one does not start, or the store
            belongs to another registry.
    """
    with connect(
        settings.registry,
        settings.data,
        store=settings.store,
        cache_bytes=settings.store_cache_bytes,
    ) as registry:
        worker = Worker(settings, registry)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        worker.open()
        worker.run()
    return 0
