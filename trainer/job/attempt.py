"""One attempt at a job, in its own process: train, publish, move the alias, record the end.

Each step may run twice, in this attempt or in a later one that finds the job half done: training
resumes from its checkpoint, a job publishes once, an alias that has moved stays.
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
from registry.common.names import Reference
from registry.common.spaces import plain
from registry.connect import Registry
from registry.errors import AdapterNotFound, FenceLost, FileNotFound, InvalidArgument
from registry.jobs.record import HELD, JobError, JobRecord
from registry.jobs.spec import JobSpec
from trainer.errors import BaseNotLoadable, RankLost, Stopped, TrainerError
from trainer.interfaces import JobFiles, Reporter, Trained
from trainer.job.alias_gate import open_alias, reason_to_keep_latest
from trainer.job.publishing import publish_trained
from trainer.job.reporting import Reporting
from trainer.job.tensorboard import with_event_files
from trainer.process.child_task import ChildTask, function_of
from trainer.process.heartbeat import Heartbeat
from trainer.process.job_cleanup import remove_folder_if_done
from trainer.process.retry import Interrupted, until_available

log = logging.getLogger(__name__)

#: A job fails at once with these: another attempt would fail in the same way.
_FAULTS_OF_THE_JOB = (TrainerError, AdapterError, InvalidArgument, FileNotFound, AdapterNotFound)


class Attempt:
    """The work of one claim.

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
        """Do the job and record how it ended."""
        self._run()
        self._until_available(lambda: remove_folder_if_done(self._registry, self._fence.job))

    def _run(self) -> None:
        claims, fence = self._registry.claims, self._fence
        try:
            with Reporting(claims, fence, self._stop, self._clock, self._heartbeat) as report:
                self._until_done(report)
        except (FenceLost, Interrupted) as error:
            log.info("%s: %s", fence.job, error)
        except Stopped:
            self._end_stopped(report)
        except _FAULTS_OF_THE_JOB as error:
            self._end_failed(error)
        except Exception as error:  # of the program or the machine: another attempt may succeed
            log.exception("%s: the attempt failed", fence.job)
            fault = fault_of(error)
            self._end(lambda now: claims.failed_attempt(fence, fault, now=now))

    def _until_done(self, report: Reporting) -> None:
        """Train, publish, move the alias, finish."""
        job = self._until_available(lambda: self._registry.jobs.get(self._fence.job))
        record = self._published(job) or self._trained(job.spec, report)
        report.validated()  # also of a job whose version an earlier attempt published
        report.event("info", f"Published as {plain(record.reference)}", {"digest": record.digest})
        spec = self._until_available(self._spec_now)
        self._report_latest(spec, record, report)
        self._move_alias(spec, record, report)
        report.close()
        claims, fence = self._registry.claims, self._fence
        self._until_available(lambda: claims.finish(fence, record.metrics, now=self._clock()))

    def _move_alias(self, spec: JobSpec, record: Record, report: Reporting) -> None:
        adapters = self._registry.adapters
        reason = self._until_available(lambda: open_alias(adapters, spec, record))
        if reason is not None:
            report.event("warn", f"Alias {spec.alias!r} stays where it is: {reason}")

    def _report_latest(self, spec: JobSpec, record: Record, report: Reporting) -> None:
        """Warn if the version is not better than the base, and say which version `latest` is."""
        reason = reason_to_keep_latest(spec, record.metrics)
        if reason is None:
            return
        adapters = self._registry.adapters
        latest = self._until_available(lambda: adapters.get(spec.stored_name)).latest.version
        if latest == record.version:
            what = f"{spec.name!r} has no other version, so this one answers under the bare name"
        else:
            what = (
                f"{spec.name!r} stays at version {latest}; this one answers as "
                f"{plain(record.reference)}. File the job with adapter.move_latest = 'always' to "
                "move it in any case"
            )
        report.event("warn", f"Not better than the base: {reason}. {what}")

    def _published(self, job: JobRecord) -> Record | None:
        """Return the version that an earlier attempt published before it ended."""
        result = job.result
        if result is None:
            return None
        _, _, version = result.reference.rpartition("@")
        wanted = Reference(job.spec.stored_name, "version", version)
        return self._until_available(lambda: self._registry.adapters.resolve(wanted))

    def _trained(self, spec: JobSpec, report: Reporting) -> Record:
        """Train and publish."""
        folder = self._registry.job_folders.take(self._fence)
        report.keep_in(folder)
        files = _files_of(self._registry, spec)
        with with_event_files(report, self._task.settings.tensorboard, spec.id) as every:
            base, trained = self._run_job(spec, files, folder, every)
        registry, fence = self._registry, self._fence
        return self._until_available(
            lambda: publish_trained(
                registry, fence, self._spec_now(), base.spec, trained, self._clock()
            )
        )

    def _spec_now(self) -> JobSpec:
        """Return the job's spec: its tenant may have been renamed while it ran."""
        return self._registry.jobs.get(self._fence.job).spec

    def _run_job(
        self, spec: JobSpec, files: JobFiles, folder: Path, report: Reporter
    ) -> tuple[Any, Trained]:
        """Return the base and the result of training on it, alone or with other ranks."""
        settings = self._task.settings
        run, load = function_of(settings.run), function_of(settings.load)
        first, *others = settings.devices
        bases = settings.data / "bases"  # the server's, if it has the same data folder
        if not others:
            base = load(settings.base, spec.task, settings.base_name, first, bases=bases)
            return base, run(spec, base, files, folder, report)
        from trainer.training.rank_processes import rank_pool

        with rank_pool(settings, spec.task, files, folder) as pool:
            base = load(settings.base, spec.task, settings.base_name, first, bases=bases)
            return base, run(spec, base, files, folder, report, pool)

    def _end_stopped(self, report: Reporting) -> None:
        """Give the job back if this process is to end; else its record says already why."""
        if report.state in HELD:
            why = f"Given back by {self._task.settings.name}, which stops"
            claims, fence = self._registry.claims, self._fence
            self._end(lambda now: claims.give_back(fence, why, now=now))

    def _end_failed(self, error: Any) -> None:
        log.error("%s: %s", self._fence.job, error)
        fault = JobError(error.code, error.message, getattr(error, "param", None))
        claims = self._registry.claims
        may_succeed = isinstance(error, BaseNotLoadable)  # on another worker
        end = claims.failed_attempt if may_succeed else claims.fail
        self._end(lambda now: end(self._fence, fault, now=now))

    def _end(self, record_end: Callable[[float], object]) -> None:
        """Record how the attempt ended, unless another worker has the job by now."""
        try:
            self._until_available(lambda: record_end(self._clock()))
        except (FenceLost, Interrupted) as error:
            log.info("%s: %s", self._fence.job, error)

    def _until_available(self, ask: Callable[[], Any]) -> Any:
        """Retry until the registry answers; the worker kills this process if it is to end."""
        never = threading.Event()

        def waiting(seconds: float) -> bool:
            self._heartbeat()
            return never.wait(seconds)

        return until_available(ask, waiting)


def fault_of(error: Exception) -> JobError:
    """Return what a job's record says of a fault of the program or the machine."""
    kind = type(error).__name__
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError":
        return JobError(
            "out_of_memory", "memory ran out; try a smaller batch_size or max_length", "batch_size"
        )
    if isinstance(error, RankLost):
        return JobError("process_died", str(error))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return JobError(
            "storage_full", "the disk is full; free some space, then file the job again"
        )
    return JobError("internal_error", f"{kind} in the job's process; see the worker's log")


def _files_of(registry: Registry, spec: JobSpec) -> JobFiles:
    validation: Path | None = None
    if spec.validation_file is not None:
        validation = registry.files.open(spec.validation_file)
    return JobFiles(registry.files.open(spec.training_file), validation)
