"""A job at the terminal, from its first event to its end: progress, losses, time left."""

import sys
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ._job_report import how_to_resume
from ._loss_chart import drawn
from ._session import Session, printable
from ._sync.client import Client
from ._sync.jobs import Job
from ._worker_commands import warning_of
from .errors import OvertoneError
from .training_types import JobEvent

#: States in which a job waits for a worker.
_WAITING = frozenset({"validating_files", "queued"})
_PER_SECOND = 4  # pictures


def follow(client: Client, session: Session, job: Job) -> Job:
    """The job at its end. What happens is shown on standard error, unless JSON is asked for.

    A server that restarts meanwhile is waited for; Ctrl-C ends the looking on, not the job.
    """
    screen = _Screen(job, is_quiet=session.as_json)
    if job.status in _WAITING and (warning := warning_of(client, job.model)):
        screen.say(f"{'warn':5} {warning}")
    if job.status == "paused":
        screen.say(f"{'warn':5} {how_to_resume(job)}")
    try:
        with screen.live():
            for event in job.events(on_lost=screen.lose):
                screen.take(event)
        screen.leave()
        return job.refresh()
    except KeyboardInterrupt:
        screen.say(f"{job.id} goes on; `overtone job {job.id} --follow` shows it again")
        raise


class _Screen:
    """What is shown of a job."""

    def __init__(self, job: Job, is_quiet: bool) -> None:
        self._is_quiet = is_quiet
        self._is_live = not is_quiet and sys.stderr.isatty()
        self._console = Console(stderr=True, highlight=False, markup=False)
        self._losses: list[tuple[int, float]] = []
        self._held_out: list[tuple[int, float]] = []
        self._num_steps = 0
        self._lost = ""
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[words]}", markup=False),
            console=self._console,
        )
        self._task = self._bar.add_task(printable(job.name or job.id), total=None, words="")

    def live(self) -> AbstractContextManager[Any]:
        """What keeps the picture moving, where there is a terminal."""
        if not self._is_live:
            return nullcontext()
        return Live(
            get_renderable=self._picture,
            console=self._console,
            refresh_per_second=_PER_SECOND,
            transient=True,
        )

    def take(self, event: JobEvent) -> None:
        """Show an event, or move bar and curve by a step's numbers."""
        self._lost = ""
        if event.type != "metrics":
            self.say(f"{event.level:5} {event.message}")
            return
        step = int(event.data["step"])
        self._num_steps = int(event.data.get("num_steps") or 0)
        if "train_loss" in event.data:
            self._losses.append((step, float(event.data["train_loss"])))
        words = self._words(event.data.get("seconds_left"))
        self._bar.update(self._task, completed=step, total=self._num_steps or None, words=words)
        held = event.data.get("eval_loss")
        if held is not None:
            self._held_out.append((step, float(held)))
            self.say(f"{'info':5} step {step}: held-out loss {float(held):.4f}")

    def say(self, line: str) -> None:
        """Print a line above the picture."""
        if not self._is_quiet:
            self._console.print(printable(line), soft_wrap=True)

    def lose(self, error: OvertoneError) -> None:
        """Say that the stream broke; the same again and again is said once."""
        if error.message != self._lost:
            self.say(f"{'warn':5} {error.message}; trying again")
        self._lost = error.message

    def leave(self) -> None:
        """Leave the curve on the terminal."""
        if self._is_live and self._losses:
            self._console.print(self._curve())

    def _picture(self) -> RenderableType:
        return Group(self._curve(), self._bar)

    def _curve(self) -> RenderableType:
        return drawn(self._losses, self._held_out, self._num_steps, self._console.width)

    def _words(self, seconds_left: float | None) -> str:
        loss = f"loss {self._losses[-1][1]:.4f}" if self._losses else ""
        left = "" if seconds_left is None else f"{timedelta(seconds=round(seconds_left))} left"
        return "  ".join(word for word in (loss, left) if word)
