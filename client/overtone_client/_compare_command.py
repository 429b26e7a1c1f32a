"""The command `overtone compare`: several models asked the same."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from ._answer_commands import MaxTokens, Temperature
from ._completion import model_names
from ._session import API_ERROR, Session, is_terminal, printable
from .errors import InvalidArgument
from .types import ComparedAnswer, Comparison

_NARROWEST = 32  # characters of a column that can still be read
_GAP = 3


def compare(  # noqa: PLR0913 (the options of a command)
    ctx: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME…", help="Up to 16 names as in complete.", autocompletion=model_names
        ),
    ],
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The text to continue; - reads it.")
    ] = None,
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Ask this in a chat instead.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="What they are told beforehand.")] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Annotated[int | None, typer.Option(help="Of all; one is drawn if it is missing.")] = None,
) -> None:
    """Ask several models the same, in one batch.

    A terminal that is wide enough shows them side by side. Exit code 1 if one of them fails.
    """
    session: Session = ctx.obj
    params = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    if (prompt is None) == (message is None) or (system is not None and message is None):
        raise InvalidArgument("give --prompt, or --message with or without --system")
    text = sys.stdin.read() if prompt == "-" else prompt
    turns = [] if system is None else [{"role": "system", "content": system}]
    messages = None if message is None else [*turns, {"role": "user", "content": message}]
    with session.client() as client:
        found = client.compare(names, text, messages=messages, **params)
    session.emit(found.raw, shown(found, Console().width if is_terminal() else None))
    if any(each.error for each in found.answers):
        raise typer.Exit(API_ERROR)


def shown(found: Comparison, width: int | None) -> RenderableType:
    """The answers side by side where each gets enough of the width, else one under another.

    Args:
        found: the answers.
        width: of the terminal, in characters; None where there is none.
    """
    columns = len(found.answers)
    needed = columns * _NARROWEST + (columns - 1) * _GAP
    if width is None or columns < 2 or width < needed:
        return _stacked(found.answers)
    table = Table(box=None, pad_edge=False, expand=True, padding=(0, _GAP, 0, 0))
    for each in found.answers:
        table.add_column(Text(printable(each.model), "bold"), ratio=1, overflow="fold")
    table.add_row(*map(_told, found.answers))
    return table


def _stacked(answers: Sequence[ComparedAnswer]) -> Text:
    text = Text()
    for each in answers:
        text.append(f"{printable(each.model)}\n", "bold")
        text.append_text(_told(each))
        text.append("\n\n")
    text.rstrip()
    return text


def _told(each: ComparedAnswer) -> Text:
    if each.error is None:
        return Text(printable(each.text))
    return Text(printable(f"error: {each.error.code}: {each.error.message}"), "red")
