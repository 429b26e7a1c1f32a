"""The command about trainer workers, and what is said where there is none."""

import typer
from rich.table import Table
from rich.text import Text

from ._session import Session, plain_table
from ._sync.client import Client
from .errors import OvertoneError
from .training_types import Worker


def workers(ctx: typer.Context) -> None:
    """List the trainer workers that are alive."""
    session: Session = ctx.obj
    with session.client() as client:
        found = client.training.workers()
    document = {"object": "list", "data": [worker.raw for worker in found]}
    hint = Text("There are no workers: filed jobs wait. " + HOW_TO_START)
    session.emit(document, _table(found) if found else hint)


#: One line, as commands to copy.
HOW_TO_START = (
    "Start one with `overtone worker --base BASE` beside the server, with its --registry and "
    "--data, or start the server with --with-worker"
)


def warning_of(client: Client, base: str) -> str | None:
    """What to say to whoever waits for a job of this base; None if a worker takes such."""
    try:
        found = client.training.workers()
    except OvertoneError:  # an older server; the job itself will tell what is wrong
        return None
    if any(worker.model == base for worker in found):
        return None
    others = f", only of {', '.join(sorted({w.model for w in found}))}" if found else ""
    return f"no worker of {base} is running{others}: the job waits for one. {HOW_TO_START}"


def _table(found: list[Worker]) -> Table:
    rows = [(one.id, one.model, one.device, "busy" if one.is_busy else "idle") for one in found]
    return plain_table(("WORKER", "BASE", "DEVICE", "STATE"), rows)
