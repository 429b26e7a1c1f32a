"""A job at the terminal, from its first event to its end: progress, loss, time left."""

import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ._session import Session, printable
from ._worker_commands import warning_of
from .client import Client
from .errors import ConnectionFailed, Draining, OvertoneError, RegistryUnavailable, Timeout
from .training_types import Job, JobEvent

#: States in which a job waits for a worker.
_WAITING = frozenset({"validating_files", "queued"})
_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 24
_AGAIN_S, _PATIENCE_S = 1.0, 120.0
#: Errors after which the stream is opened again; the job is not affected.
_PASSING = (ConnectionFailed, Timeout, Draining, RegistryUnavailable)


def follow(client: Client, session: Session, job: Job) -> Job:
    """The job at its end. What happens is shown on standard error, unless JSON is asked for.

    A server that restarts meanwhile is waited for; Ctrl-C ends the looking on, not the job.
    """
    screen = _Screen(job, is_quiet=session.as_json)
    if job.status in _WAITING and (warning := warning_of(client, job.model)):
        screen.say(f"{'warn':5} {warning}")
    try:
        with screen.progress:
            _follow(client, screen)
        return client.training.job(job.id)
    except KeyboardInterrupt:
        screen.say(f"{job.id} goes on; `overtone job {job.id} --follow` shows it again")
        raise


class _Screen:
    """What is shown, and how far it has come."""

    def __init__(self, job: Job, is_quiet: bool) -> None:
        self.job, self._is_quiet = job, is_quiet
        self.after: str | None = None
        self.after_step: int | None = None
        self._losses: list[float] = []
        self._console = Console(stderr=True, highlight=False, markup=False)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}", markup=False),
        )
        is_hidden = is_quiet or not sys.stderr.isatty()
        self.progress = Progress(*columns, console=self._console, disable=is_hidden, transient=True)
        self._task = self.progress.add_task(printable(job.name or job.id), total=None, loss="")

    def take(self, event: JobEvent) -> None:
        """Show an event, or move the bar by a step's numbers."""
        if event.type != "metrics":
            self.after = event.id
            self.say(f"{event.level:5} {event.message}")
            return
        self.after_step = step = int(event.data["step"])
        if "train_loss" in event.data:
            self._losses.append(float(event.data["train_loss"]))
        total = event.data.get("num_steps") or None
        self.progress.update(self._task, completed=step, total=total, loss=self._curve())
        held = event.data.get("eval_loss")
        if held is not None:
            self.say(f"{'info':5} step {step}: held-out loss {float(held):.4f}")

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if not self._is_quiet:
            self._console.print(printable(line), soft_wrap=True)

    def _curve(self) -> str:
        return f"loss {self._losses[-1]:.4f} {sparkline(self._losses)}" if self._losses else ""


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """The values as a row of bars; of many, the means of neighbours."""
    size = -(-len(values) // width) or 1
    groups = [values[start : start + size] for start in range(0, len(values), size)]
    means = [sum(group) / len(group) for group in groups]
    low, span = min(means), (max(means) - min(means)) or 1.0
    return "".join(_BARS[int((mean - low) / span * (len(_BARS) - 1))] for mean in means)


def _follow(client: Client, screen: _Screen) -> None:
    since = time.monotonic()
    while True:
        try:
            for event in client.training.stream(
                screen.job.id, after=screen.after, after_step=screen.after_step
            ):
                since = time.monotonic()
                screen.take(event)
            return
        except _PASSING as error:
            if time.monotonic() > since + _PATIENCE_S:
                raise
            _wait(screen, error)


def _wait(screen: _Screen, error: OvertoneError) -> None:
    screen.say(f"{'warn':5} {error.message}; trying again")
    time.sleep(_AGAIN_S)
