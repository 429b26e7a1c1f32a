"""The command `evaluate`: a training job's figures of what the server answers."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ._answer_commands import ModelName
from ._session import Session, facts, printable
from ._sync.client import Client
from ._training_commands import uploaded
from .errors import InvalidResponse
from .training_types import Evaluation


def evaluate(
    ctx: typer.Context,
    name: ModelName,
    data: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="JSONL, CSV, or a zip of images.")
    ],
    max_length: Annotated[
        int | None, typer.Option(min=2, help="Cut texts to so many tokens, as a job was told to.")
    ] = None,
) -> None:
    """Compute loss, accuracy … of what is served, on a file.

    The figures are those that a training job reports.
    """
    session: Session = ctx.obj
    with session.client() as client:
        file = uploaded(client, session, data)
        try:
            found = _followed(client, session, name, file.id, max_length)
        finally:
            client.training.delete_file(file.id)
    shown = {"model": found.model, "examples": found.num_examples}
    figures = {metric: f"{value:.6g}" for metric, value in found.metrics.items()}
    session.emit(found.raw, facts(shown | figures))


def _followed(
    client: Client, session: Session, name: str, file: str, max_length: int | None
) -> Evaluation:
    """The evaluation at its end, with a bar on the way."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    hidden = session.as_json or not sys.stderr.isatty()
    console, last = Console(stderr=True), None
    with Progress(*columns, console=console, disable=hidden, transient=True) as progress:
        bar = progress.add_task(printable(name), total=None)
        for last in client.training.evaluate(name, file, max_length=max_length):
            progress.update(bar, completed=last.done, total=last.num_examples)
    if last is None or not last.is_over:
        raise InvalidResponse("the server ended the evaluation without its figures")
    return last
