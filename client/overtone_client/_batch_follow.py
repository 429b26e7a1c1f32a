"""A batch at the terminal, to its end: a bar of answered requests on standard error."""

import sys
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from . import _pauses as pauses
from ._patience import Patience
from ._session import Session, printable
from ._sync.client import Client
from .batch_types import Batch
from .errors import PASSING

_LOOK_S, _AGAIN_S = 1.0, 1.0


def follow(client: Client, session: Session, batch: Batch) -> Batch:
    """The batch at its end; a server that restarts meanwhile is waited for.

    Ctrl-C ends the looking on, not the batch.
    """
    console = Console(stderr=True, highlight=False, markup=False)

    def say(line: str) -> None:
        if not session.as_json:
            console.print(printable(line), soft_wrap=True)

    is_hidden = session.as_json or not sys.stderr.isatty()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}", markup=False),
    )
    try:
        with Progress(*columns, console=console, disable=is_hidden, transient=True) as progress:
            task = progress.add_task("", total=None, failed="")
            while not batch.is_final:
                failed = f"{batch.failed} failed" if batch.failed else ""
                done = batch.completed + batch.failed
                progress.update(
                    task, description=printable(batch.status), total=batch.total, failed=failed
                )
                progress.update(task, completed=done)
                pauses.pause(_LOOK_S)
                batch = _looked_up(client, batch, say)
    except KeyboardInterrupt:
        say(f"{batch.id} goes on; `overtone batch show {batch.id} --follow` shows it again")
        raise
    return batch


def _looked_up(client: Client, batch: Batch, say: Callable[[str], None]) -> Batch:
    patience, told = Patience(), ""
    while True:
        try:
            return client.batches.get(batch.id)
        except PASSING as error:
            pause_s = patience.pause_s(error, _AGAIN_S)
            if error.message != told:
                say(f"{'warn':5} {error.message}; trying again")
            told = error.message
            pauses.pause(pause_s)
