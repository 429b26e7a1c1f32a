"""The commands that ask a cross-encoder: rerank and score."""

import sys
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ._answer_commands import ModelName
from ._session import Session, printable

Truncate = Annotated[
    bool, typer.Option("--truncate", help="Cut texts that are too long instead of refusing them.")
]


def rerank(
    ctx: typer.Context,
    name: ModelName,
    query: Annotated[str, typer.Argument(help="What is asked.")],
    documents: Annotated[
        list[str] | None,
        typer.Argument(help="The texts; none: one from each line of standard input."),
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Only so many of the best.")] = None,
    truncate: Truncate = False,
) -> None:
    """Order documents by how well they answer a query."""
    session: Session = ctx.obj
    texts = documents or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    with session.client() as client:
        found = client.rerank(name, query, texts, top_n=top, truncate=truncate or None)
    table = Table("SCORE", "INDEX", "DOCUMENT", box=None, pad_edge=False, header_style="bold")
    for one in found.results:
        table.add_row(f"{one.score:.4f}", str(one.index), Text(printable(one.text or "")))
    session.emit(found.raw, table)


def score(
    ctx: typer.Context,
    name: ModelName,
    text_1: Annotated[str, typer.Argument(help="The first text, such as a query.")],
    text_2: Annotated[list[str], typer.Argument(help="One text or more to pair it with.")],
    truncate: Truncate = False,
) -> None:
    """Score one text with each of others."""
    session: Session = ctx.obj
    with session.client() as client:
        found = client.score(name, text_1, text_2, truncate=truncate or None)
    lines = [f"{score:.4f}  {text}" for score, text in zip(found.scores, text_2, strict=True)]
    session.emit(found.raw, Text(printable("\n".join(lines))))
