"""The commands that ask a cross-encoder: rerank and score."""

from typing import Annotated

import typer
from rich.text import Text

from ._answer_commands import ModelName
from ._encoding_calls import paired
from ._input_texts import lines_given
from ._session import Session, plain_table, printable

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
    texts = lines_given(documents)
    with session.client() as client:
        found = client.rerank(name, query, texts, top_n=top, truncate=truncate or None)
    rows = [(f"{one.score:.4f}", str(one.index), one.text or "") for one in found.results]
    session.emit(found.raw, plain_table(("SCORE", "INDEX", "DOCUMENT"), rows))


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
    lines = [f"{score:.4f}  {text}" for text, score in paired(text_2, found.scores)]
    session.emit(found.raw, Text(printable("\n".join(lines))))
