"""One attempt at a job, inside its own process: train, publish, move the alias, say how it ended.

Each step may be done twice, by this attempt or by a later one that finds the job half done:
training goes on from its checkpoint, a job publishes once, an alias that is there is left alone.
"""

import errno
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapters_core.errors import AdapterError
from registry.adapters.records import Record
from registry.connect import Registry
from registry.errors import AdapterNotFound, FenceLost, FileNotFound, InvalidArgument
from registry.jobs.record import HELD, JobError, JobRecord
from registry.jobs.spec import JobSpec
from trainer.errors import BaseNotLoadable, RankLost, Stopped, TrainerError
from trainer.interfaces import JobFiles, Reporter, Trained
from trainer.job.alias_gate import open_alias, reason_to_keep_latest
from trainer.job.publishing import publish_trained
from trainer.job.reporting import Reporting
from trainer.job.tensorboard import written
from trainer.process.child_task import ChildTask, function_of
from trainer.process.heartbeat import Heartbeat
from trainer.process.job_cleanup import remove_folder_if_done
from trainer.process.retry import Interrupted, until_available

log = logging.getLogger(__name__)

#: Faults of the job itself: they would come again, so it fails at once.
_CLEAR = (TrainerError, AdapterError, InvalidArgument, FileNotFound, AdapterNotFound)


class Attempt:
    """One claim's work.

    Args:
        task: as the worker gave it.
        registry: to read from and report to.
        stop: set when this process is to end soon.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        task: ChildTask,
        registry: Registry,
        stop: threading.Event,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._task, self._registry, self._stop, self._clock = task, registry, stop, clock
        self._fence = task.fence
        self._heartbeat = Heartbeat(task.heartbeat)

    def run(self) -> None:
        """Do the job, and leave its record in the state that it deserves."""
        self._run()
        self._until_available(lambda: remove_folder_if_done(self._registry, self._fence.job))

    def _run(self) -> None:
        try:
            words = (self._registry.claims, self._fence, self._stop, self._clock, self._heartbeat)
            with Reporting(*words) as report:
                self._until_done(report)
        except (FenceLost, Interrupted) as error:
            log.info("%s: %s", self._fence.job, error)
        except Stopped:
            self._end_stopped(report)
        except _CLEAR as error:
            self._end_failed(error)
        except Exception as error:  # a fault of ours or of the machine: another attempt may do
            log.exception("%s: the attempt failed", self._fence.job)
            fault = fault_of(error)
            self._say(lambda now: self._registry.claims.failed_attempt(self._fence, fault, now=now))

    def _until_done(self, report: Reporting) -> None:
        job = self._until_available(lambda: self._registry.jobs.get(self._fence.job))
        record = self._published(job) or self._trained(job.spec, report)
        report.validated()  # of what an earlier attempt published nobody has said it here
        report.event("info", f"Published as {record.reference}", {"digest": record.digest})
        adapters = self._registry.adapters
        self._tell_of_latest(job.spec, record, report)
        reason = self._until_available(lambda: open_alias(adapters, job.spec, record))
        if reason is not None:
            report.event("warn", f"Alias {job.spec.alias!r} stays where it is: {reason}")
        report.close()
        claims, fence = self._registry.claims, self._fence
        self._until_available(lambda: claims.finish(fence, record.metrics, now=self._clock()))

    def _tell_of_latest(self, spec: JobSpec, record: Record, report: Reporting) -> None:
        """Say loudly what a version that is no better than the base means for its name."""
        reason = reason_to_keep_latest(spec, record.metrics)
        if reason is None:
            return
        latest = self._until_available(
            lambda: self._registry.adapters.get(spec.name)
        ).latest.version
        if latest == record.version:
            what = f"{spec.name!r} has no other version, so this one answers under the bare name"
        else:
            what = f"{spec.name!r} stays at version {latest}; this one answers as "
            what += f"{record.reference}. File the job with adapter.move_latest = 'always' to move "
            what += "it in any case"
        report.event("warn", f"Not better than the base: {reason}. {what}")

    def _published(self, job: JobRecord) -> Record | None:
        """Return what an earlier attempt published before it ended."""
        result = job.result
        if result is None:
            return None
        return self._until_available(lambda: self._registry.adapters.resolve(result.reference))

    def _trained(self, spec: JobSpec, report: Reporting) -> Record:
        folder = self._registry.job_folders.take(self._fence)
        report.keep_in(folder)
        files = _files_of(self._registry, spec)
        with written(report, self._task.settings.tensorboard, spec.id) as heard:
            base, trained = self._run_job(spec, files, folder, heard)
        registry, fence = self._registry, self._fence
        return self._until_available(
            lambda: publish_trained(registry, fence, spec, base.spec, trained, self._clock())
        )

    def _run_job(
        self, spec: JobSpec, files: JobFiles, folder: Path, report: Reporter
    ) -> tuple[Any, Trained]:
        """Return the base and what was trained on it, alone or with other ranks."""
        settings = self._task.settings
        run, load = function_of(settings.run), function_of(settings.load)
        first, *others = settings.devices
        if not others:
            base = load(settings.base, spec.task, settings.base_name, first)
            return base, run(spec, base, files, folder, report)
        from trainer.training.rank_processes import rank_pool

        with rank_pool(settings, spec.task, files, folder) as pool:
            base = load(settings.base, spec.task, settings.base_name, first)
            return base, run(spec, base, files, folder, report, pool)

    def _end_stopped(self, report: Reporting) -> None:
        """Give the job back if it is this process that ends; else its record says it already."""
        if report.state in HELD:
            why = f"Given back by {self._task.settings.name}: it stops"
            self._say(lambda now: self._registry.claims.give_back(self._fence, why, now=now))

    def _end_failed(self, error: Any) -> None:
        log.error("%s: %s", self._fence.job, error)
        fault = JobError(error.code, error.message, getattr(error, "param", None))
        claims = self._registry.claims
        again = isinstance(error, BaseNotLoadable)  # this worker's fault, perhaps not another's
        end = claims.failed_attempt if again else claims.fail
        self._say(lambda now: end(self._fence, fault, now=now))

    def _say(self, say: Callable[[float], object]) -> None:
        try:
            self._until_available(lambda: say(self._clock()))
        except (FenceLost, Interrupted) as error:
            log.info("%s: %s", self._fence.job, error)

    def _until_available(self, ask: Callable[[], Any]) -> Any:
        """Wait a registry out, however long: the worker ends us when it is to end itself."""
        never = threading.Event()

        def waiting(seconds: float) -> bool:
            self._heartbeat()
            return never.wait(seconds)

        return until_available(ask, waiting)


def fault_of(error: Exception) -> JobError:
    """Return what callers may know of a fault that is not the job's own."""
    kind = type(error).__name__
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError":
        return JobError(
            "out_of_memory", "memory ran out; try a smaller batch_size or max_length", "batch_size"
        )
    if isinstance(error, RankLost):
        return JobError("process_died", str(error))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return JobError("storage_full", "the disk is full; make room, then file the job again")
    return JobError("internal_error", f"{kind} in the job's process; its worker's log has it all")


def _files_of(registry: Registry, spec: JobSpec) -> JobFiles:
    validation: Path | None = None
    if spec.validation_file is not None:
        validation = registry.files.open(spec.validation_file)
    return JobFiles(registry.files.open(spec.training_file), validation)
