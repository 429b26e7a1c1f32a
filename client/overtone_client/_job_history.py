"""What happened to a training job: its events, checkpoints and losses."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console, Group
from rich.text import Text

from ._loss_chart import drawn
from ._session import Session, is_terminal, plain_table
from ._sync.client import Client
from .training_types import CurvePoint

_WIDTH = 80  # of a picture where no terminal says it


def show_events(client: Client, session: Session, id: str) -> None:
    """Print what happened, the oldest first."""
    found = list(client.training.events(id))[::-1]
    rows = [(_time(one.created_at), one.level, one.message) for one in found]
    table = plain_table(("TIME", "LEVEL", "EVENT"), rows)
    session.emit_list([one.raw for one in found], table if found else Text("There are no events."))


def show_checkpoints(client: Client, session: Session, id: str) -> None:
    """Print what the job can resume from, the newest first."""
    found = list(client.training.checkpoints(id))
    rows = [(one.id, str(one.step), _time(one.created_at)) for one in found]
    table = plain_table(("CHECKPOINT", "STEP", "CREATED"), rows)
    shown = table if found else Text("There are no checkpoints.")
    session.emit_list([one.raw for one in found], shown)


def show_curve(client: Client, session: Session, id: str) -> None:
    """Draw the losses so far; as JSON: every number of every step."""
    found = list(client.training.curve(id))
    train, held_out = _losses(found, "train_loss"), _losses(found, "eval_loss")
    width = Console().width if is_terminal() else _WIDTH
    last = Text(f"\nstep {train[-1][0]}: loss {train[-1][1]:.4f}" if train else "no step yet")
    shown = Group(drawn(train, held_out, 0, width), last)
    session.emit_list([{"step": point.step, **point.values} for point in found], shown)


def _losses(points: Sequence[CurvePoint], name: str) -> list[tuple[int, float]]:
    return [(point.step, point.values[name]) for point in points if name in point.values]


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else ""
