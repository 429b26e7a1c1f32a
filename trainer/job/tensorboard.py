"""Writes a job's metrics as TensorBoard's event files, in addition to the registry's.

Each job is one run, `DIR/<job's id>`. An attempt that resumes from a checkpoint begins a new file,
which has TensorBoard drop all values from its first step on: no step is shown twice. Each step is
flushed, so that a killed process loses none that a checkpoint has.
"""

import importlib.util
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from registry.jobs.samples import Samples
from trainer.interfaces import Reporter, Wanted


def check(folder: Path) -> None:
    """Create the folder of all runs.

    Raises:
        ValueError: the package is missing, or nothing can be written there.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError(
            "--tensorboard needs the package tensorboard, which is not installed: "
            "pip install 'overtone[tensorboard]'"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--tensorboard {folder}: {error.strerror}; name a folder") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(
            f"--tensorboard {folder}: this user cannot write there; name another folder"
        )


def with_event_files(
    report: Reporter, runs: Path | None, job_id: str
) -> AbstractContextManager["Reporter"]:
    """Return the reporter of a job that also writes event files, if there is a folder for them."""
    return nullcontext(report) if runs is None else EventFiles(report, runs / job_id)


class EventFiles(Reporter):
    """A reporter that also writes event files; a context manager that closes them.

    Args:
        report: receives all news too.
        folder: of this job's run; created with the first value.
    """

    def __init__(self, report: Reporter, folder: Path) -> None:
        self._report, self._folder = report, folder
        self._writer: Any = None
        self._is_broken = False

    def event(self, level: str, message: str, data: dict[str, Any] | None = None) -> None:
        self._report.event(level, message, data)

    def validated(self) -> None:
        self._report.validated()

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self._report.metrics(step, values)
        self._trying(lambda: self._write(step, values))

    def checkpoint(self, step: int, name: str) -> None:
        self._report.checkpoint(step, name)

    def samples(self, given: Samples) -> None:
        self._report.samples(given)

    def progress(self, step: int, num_steps: int, seconds_left: float | None) -> None:
        self._report.progress(step, num_steps, seconds_left)

    def wanted(self) -> Wanted:
        return self._report.wanted()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # An evaluation alone does not replace the training values of its step.
            first = step + ("train_loss" not in values and step > 0)
            self._writer = SummaryWriter(str(self._folder), purge_step=first)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def _trying(self, write: Callable[[], None]) -> None:
        """Write; after a failure stop writing, as the job's record has the values, too."""
        if self._is_broken:
            return
        try:
            write()
        except OSError as error:
            self._is_broken = True
            message = f"no more is written for TensorBoard: {error.strerror or error}"
            self._report.event("warn", message)
