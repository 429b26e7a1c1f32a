"""A job's measurements as TensorBoard's event files, beside what the registry hears.

Each job is one run, `DIR/<job's id>`. An attempt that goes on from a checkpoint begins a file of
its own, which tells TensorBoard to forget all from its first step on: no step is shown twice.
Each step is flushed, so that a killed process takes none along that a checkpoint has.
"""

import importlib.util
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from trainer.interfaces import Reporter, Wanted


def check(folder: Path) -> None:
    """Make the folder of all runs.

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
        raise ValueError(f"--tensorboard {folder}: nothing can be written there")


def written(report: Reporter, runs: Path | None, job_id: str) -> AbstractContextManager["Reporter"]:
    """Return what hears of a job in the place of `report`, and writes if there is a folder."""
    return nullcontext(report) if runs is None else EventFiles(report, runs / job_id)


class EventFiles(Reporter):
    """A reporter that also writes a job's numbers down; a context manager that closes the file.

    Args:
        report: hears all that this one hears.
        folder: of this job's run; made when there is something to write.
    """

    def __init__(self, report: Reporter, folder: Path) -> None:
        self._report, self._folder = report, folder
        self._writer: Any = None
        self._is_broken = False

    def event(self, level: str, message: str, data: dict[str, Any] | None = None) -> None:
        """Pass a line on."""
        self._report.event(level, message, data)

    def validated(self) -> None:
        """Pass on that the job's words and files are valid."""
        self._report.validated()

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Take the numbers of a step."""
        self._report.metrics(step, values)
        self._trying(lambda: self._write(step, values))

    def checkpoint(self, step: int, name: str) -> None:
        """Pass a checkpoint's name on."""
        self._report.checkpoint(step, name)

    def progress(self, step: int, num_steps: int, seconds_left: float | None) -> None:
        """Pass on how far the job is."""
        self._report.progress(step, num_steps, seconds_left)

    def wanted(self) -> Wanted:
        """Return what the job is to do."""
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

            # An evaluation alone does not replace what its step was trained with.
            first = step + ("train_loss" not in values and step > 0)
            self._writer = SummaryWriter(str(self._folder), purge_step=first)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def _trying(self, write: Callable[[], None]) -> None:
        """Write, and train on where that fails: the numbers are in the job's record, too."""
        if self._is_broken:
            return
        try:
            write()
        except OSError as error:
            self._is_broken = True
            message = f"no more is written for TensorBoard: {error.strerror or error}"
            self._report.event("warn", message)
