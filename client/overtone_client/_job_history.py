"""What happened to a training job: its events, checkpoints and losses."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.console import Console, Group
from rich.text import Text

from ._loss_chart import drawn
from ._session import Session, facts, is_terminal, plain_table, printable
from ._sync.client import Client
from .training_types import CurvePoint, JobCheckpoint

_WIDTH = 80  # of a picture where no terminal says it
_LEFT_OUT = {
    "time": "none: they have a tenth of the job's time",
    "failed": "none: --events says why",
    "no_prompts": "none: no example has a prompt",
    "not_made": "not made",
}
_CUT = {"length": " (cut at 48 tokens)", "time": " (cut: the samples' time was over)"}


def show_events(client: Client, session: Session, id: str) -> None:
    """Print what happened, the oldest first."""
    found = list(client.training.events(id))[::-1]
    rows = [(_time(one.created_at), one.level, one.message) for one in found]
    table = plain_table(("TIME", "LEVEL", "EVENT"), rows)
    session.emit_list([one.raw for one in found], table if found else Text("There are no events."))


def show_checkpoints(client: Client, session: Session, id: str) -> None:
    """Print what the job can resume from and what it answered there, the newest first."""
    found = list(client.training.checkpoints(id))
    rows = [(one.id, str(one.step), _time(one.created_at), _count(one)) for one in found]
    table = plain_table(("CHECKPOINT", "STEP", "CREATED", "SAMPLES"), rows)
    samples = [line for one in found for line in _sampled(one)]
    shown = Group(table, *samples) if found else Text("There are no checkpoints.")
    session.emit_list([one.raw for one in found], shown)


def show_curve(client: Client, session: Session, id: str) -> None:
    """Draw the losses so far; as JSON: every number of every step."""
    found = list(client.training.curve(id))
    train, held_out = _losses(found, "train_loss"), _losses(found, "eval_loss")
    width = Console().width if is_terminal() else _WIDTH
    last = Text(f"\nstep {train[-1][0]}: loss {train[-1][1]:.4f}" if train else "no step yet")
    shown = Group(drawn(train, held_out, 0, width), last)
    session.emit_list([{"step": point.step, **point.values} for point in found], shown)


def _count(checkpoint: JobCheckpoint) -> str:
    """Return how many samples there are, or why there are none."""
    if checkpoint.samples:
        return str(len(checkpoint.samples))
    why = checkpoint.samples_left_out or ""
    return printable(_LEFT_OUT.get(why, why))


def _sampled(checkpoint: JobCheckpoint) -> Iterator[Text]:
    """Yield a checkpoint's samples: prompt, the file's answer and the adapter's, each in a line."""
    for sample in checkpoint.samples:
        cut = _CUT.get(sample.finish_reason, "")
        texts = {
            "prompt": _quoted(sample.prompt),
            "expected": _quoted(sample.expected),
            "answer": _quoted(sample.answer) + cut,
        }
        title = f"\nstep {checkpoint.step}, of the {checkpoint.samples_source}"
        yield Text(printable(title), style="bold")
        yield facts(texts)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _losses(points: Sequence[CurvePoint], name: str) -> list[tuple[int, float]]:
    return [(point.step, point.values[name]) for point in points if name in point.values]


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else ""
