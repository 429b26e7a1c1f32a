"""An answer on the terminal, as it arrives."""

import sys
from collections.abc import Iterable

import typer
from rich.console import Console

from ._session import printable
from .types import AnsweredBy, ChatChoice, ChatChunk, CompletionChunk


def print_all(chunks: Iterable[CompletionChunk | ChatChunk], said: list[str] | None = None) -> None:
    """Print an answer, and say what answered.

    Args:
        chunks: its pieces.
        said: gets the texts of the pieces; they are all there also where the rest does not come.
    """
    answered_by: AnsweredBy | None = None
    for chunk in chunks:
        answered_by = chunk.answered_by or answered_by
        if said is not None:
            said.append(chunk.text)
        typer.echo(printable(chunk.text + _calls_in(chunk)), nl=False)
        sys.stdout.flush()
    typer.echo()
    if answered_by and answered_by.adapter and sys.stderr.isatty():
        answered = f"[{answered_by.adapter}@{answered_by.version} {answered_by.mode}]"
        Console(stderr=True, highlight=False, markup=False).print(printable(answered), style="dim")


def _calls_in(chunk: CompletionChunk | ChatChunk) -> str:
    """What a chunk has of calls: each on a line of its own, its name before its arguments."""
    calls = [call for c in chunk.choices if isinstance(c, ChatChoice) for call in c.tool_calls]
    names = ["" if call.name is None else f"\n{call.name} " for call in calls]
    return "".join(name + call.arguments for name, call in zip(names, calls, strict=True))
