"""The commands that ask an encoder, and the tokenizer: classify, embed, tokenize, detokenize."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.text import Text

from ._answer_commands import ModelName
from ._encoding_calls import paired
from ._input_texts import lines_given
from ._rerank_command import Truncate
from ._session import Session, is_terminal, plain_table, printable

InputTexts = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT…", help="None: one from each line of standard input."),
]
_SHOWN = 4  # numbers of a vector, for people


def classify(
    ctx: typer.Context, name: ModelName, texts: InputTexts = None, truncate: Truncate = False
) -> None:
    """Say which label each text has."""
    session: Session = ctx.obj
    given = lines_given(texts)
    with session.client() as client:
        found = client.classify(name, given, truncate=truncate or None)
    rows = [(one.label, f"{one.score:.4f}", text) for text, one in paired(given, found.labels)]
    session.emit(found.raw, plain_table(("LABEL", "SCORE", "TEXT"), rows))


def embed(
    ctx: typer.Context,
    name: ModelName,
    texts: InputTexts = None,
    prompt_name: Annotated[str | None, typer.Option(help="One of the base's prompts.")] = None,
    truncate: Truncate = False,
) -> None:
    """Return one vector per text.

    People see how each begins; --json has all of it.
    """
    session: Session = ctx.obj
    given = lines_given(texts)
    with session.client() as client:
        found = client.embed(name, given, prompt_name=prompt_name, truncate=truncate or None)
    lines = [_line(vector, text) for text, vector in paired(given, found.vectors)]
    session.emit(found.raw, Text(printable("\n".join(lines))))


def tokenize(
    ctx: typer.Context,
    text: Annotated[str, typer.Argument(help="The text; - reads standard input.")],
    special: Annotated[
        bool | None,
        typer.Option("--special/--no-special", help="With the tokens that a prompt begins with."),
    ] = None,
) -> None:
    """Show the tokens of a text as a prompt has them."""
    session: Session = ctx.obj
    read = sys.stdin.read() if text == "-" else text
    with session.client() as client:
        found = client.tokenize(read, add_special_tokens=special)
    rows = [(str(id_), repr(shown)) for id_, shown in paired(found.ids, found.texts)]
    session.emit(found.raw, plain_table(("ID", "TOKEN"), rows))
    if not session.as_json and is_terminal():
        typer.echo(f"{len(found.ids)} of {found.max_length} tokens", err=True)


def detokenize(
    ctx: typer.Context,
    ids: Annotated[list[int], typer.Argument(metavar="ID…", min=0, help="Ids of tokens.")],
) -> None:
    """Show the text that tokens say."""
    session: Session = ctx.obj
    with session.client() as client:
        text = client.detokenize(ids)
    session.emit({"prompt": text}, Text(printable(text)))


def _line(vector: Sequence[float], text: str) -> str:
    begins = " ".join(f"{number:+.4f}" for number in vector[:_SHOWN])
    return f"{len(vector)} numbers: {begins} …  {text}"
