"""A worker: claims jobs of its base, runs each in a process of its own, and survives what it can.

    look after the others · claim · start a process · beat until it ends · say how it ended

Any number of workers may share a registry; each has one job at a time. A worker that dies takes
its job's process along; the next worker to notice takes the job back, and it goes on from its last
checkpoint. Asked to stop, a worker lets its job write a checkpoint and gives it back.
"""

import logging
import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace

from adapters_core.starting import check_base, check_device, check_folder
from registry.common.fence import Fence
from registry.connect import Registry, check_url, connect
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
GIVE_BACK_S = 10.0  # for a registry that is away while a stopping worker has a job to give back


class Worker:
    """One worker; `run` returns after `stop`.

    Args:
        settings: how it works.
        registry: open, and closed by the caller.
    """

    def __init__(self, settings: WorkerSettings, registry: Registry) -> None:
        self._settings, self._registry, self._claims = settings, registry, registry.claims
        self._watch = StaleClaims(registry.claims, settings.base_name, settings.lost_after_s)
        self._next_look = 0.0
        self._has_cleaned_up = False  # of what dead processes left
        self._record = WorkerRecord(settings.name, settings.base_name, settings.device, time.time())
        self._stopping, self._hurrying = threading.Event(), threading.Event()

    def stop(self) -> None:
        """End soon, giving the job back; asked again, at once."""
        (self._hurrying if self._stopping.is_set() else self._stopping).set()

    def open(self) -> None:
        """Wait until the registry answers, or the worker is to stop; make sure of the store.

        Raises:
            RegistryUnusable: the registry does not answer, and waiting does not help.
            ForeignStore: the store belongs to another registry.
        """
        with suppress(Interrupted):
            until_available(lambda: self._registry.open_store(patience_s=0), self._stopping.wait)

    def run(self) -> None:
        """Work until stopped. From the main thread: a job's process dies with the starting one."""
        log.info("worker %s waits for jobs of %r", self._settings.name, self._settings.base_name)
        while not self._stopping.is_set():
            try:
                job = until_available(self._next, self._stopping.wait)
            except Interrupted:
                break
            except RegistryError:  # one job's rubbish must not keep all workers from the others
                log.exception("the registry holds what it should not; going on")
                self._stopping.wait(CLAIM_WAIT_S)
                continue
            if job is not None:
                self._record, self._next_look = replace(self._record, job=job.id), 0.0
                self._work(job)
                self._record, self._next_look = replace(self._record, job=None), 0.0
        with suppress(RegistryError):  # it is not shown for long without this, too
            self._registry.workers.leave(self._record.name)

    def _next(self) -> JobRecord | None:
        settings = self._settings
        self._look()
        return self._claims.take(settings.base_name, settings.name, CLAIM_WAIT_S, now=time.time())

    def _look(self) -> None:
        at = time.monotonic()
        if at >= self._next_look:
            self._next_look = at + self._settings.lost_after_s / 6
            self._registry.workers.beat(self._record)
            if not self._has_cleaned_up:
                remove_finished_folders(self._registry)
                self._has_cleaned_up = True
            self._watch.look(at, time.time())

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
            self._has_cleaned_up = False  # it may have ended before it had tidied up
            self._report_death(process, fence)

    def _supervise(self, process: JobProcess, fence: Fence) -> None:
        """Return when the process has ended, by itself or by us."""
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
        """Return whether the job is to go on; a registry that is down changes nothing."""
        try:
            state = self._claims.beat(fence)
            self._look()
        except RegistryUnavailable as error:
            log.warning("%s: %s", fence.job, error)
            return True
        except RegistryError:
            log.exception("%s: its registry holds what it should not", fence.job)
            return True
        # A process that has reported the end of its job cleans up, and ends by itself.
        return state in (*HELD, "succeeded", "failed")

    def _report_death(self, process: JobProcess, fence: Fence) -> None:
        """Say of a process that could not say it itself how it ended."""
        fault = _fault_of(process, self._settings.stalled_after_s)
        why = f"Given back by {self._settings.name}: it stops"

        def say() -> JobRecord:
            if self._stopping.is_set():
                return self._claims.give_back(fence, why, now=time.time())
            return self._claims.failed_attempt(fence, fault, now=time.time())

        give_up_at = time.monotonic() + GIVE_BACK_S

        def interrupted(wait_s: float) -> bool:
            is_late = self._stopping.is_set() and time.monotonic() >= give_up_at
            return self._hurrying.wait(wait_s) or is_late

        try:
            until_available(say, interrupted)
        except (FenceLost, Interrupted) as error:
            log.info("%s: %s", fence.job, error)

    def _task(self, fence: Fence) -> ChildTask:
        settings, server = self._settings, self._registry.server
        if server is not None:
            settings = settings.model_copy(update={"registry": server.url})
        return ChildTask(settings=settings, fence=fence, parent=os.getpid())


def _fault_of(process: JobProcess, stalled_after_s: float) -> JobError:
    """Return why a process that could not say it itself has ended."""
    if process.silent_s >= stalled_after_s:
        silent = f"the job's process did nothing for {stalled_after_s:g} s and was ended"
        return JobError("process_stalled", f"{silent}; the worker's --stalled-after is the limit")
    return JobError("process_died", f"the job's process ended with {process.ending}")


def check(settings: WorkerSettings) -> None:
    """Check what can be before anything is loaded or claimed.

    Raises:
        CannotStart: the base, a device or a folder is not there for this worker.
        InvalidArgument: the registry is named wrongly.
    """
    check_url(settings.registry)
    check_base(settings.base)
    for device in settings.devices:
        check_device(device)
    check_folder("data", settings.data)
    if settings.store is not None:
        check_folder("store", settings.store)


def run_worker(settings: WorkerSettings) -> int:
    """Run a worker until SIGTERM or Ctrl-C; return the program's exit code.

    Raises:
        RegistryError: the registry's URL is wrong, or the embedded one does not come up, or the
            store belongs to another one.
    """
    with connect(settings.registry, settings.data, store=settings.store) as registry:
        worker = Worker(settings, registry)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        worker.open()
        worker.run()
    return 0
