"""The options that say what an answer must be like, and the parameters that they stand for."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import InvalidArgument

SchemaFile = Annotated[
    Path | None, typer.Option("--json-schema", help="A file: answer in JSON that it accepts.")
]
Regex = Annotated[
    str | None, typer.Option("--regex", help="The whole answer matches this expression.")
]
Choices = Annotated[
    list[str] | None, typer.Option("--choice", help="Answer one of these; give it several times.")
]
GrammarFile = Annotated[
    Path | None, typer.Option("--grammar", help="A file in Lark's form or GBNF: answer within it.")
]


def answer_form(
    schema: Path | None, regex: str | None, choices: list[str] | None, grammar: Path | None
) -> dict[str, Any]:
    """The parameters of a request for these options.

    Raises:
        InvalidArgument: a file cannot be read, or is no JSON.
    """
    return {
        "response_format": None if schema is None else _format(schema),
        "guided_regex": regex,
        "guided_choice": choices or None,
        "guided_grammar": None if grammar is None else _text(grammar),
    }


def _format(file: Path) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": file.stem, "schema": json_of(file)}}


def json_of(file: Path) -> Any:
    """What a file of JSON holds. Raises InvalidArgument where it cannot be read."""
    try:
        return json.loads(_text(file))
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{file} cannot be read as JSON: {error}") from error


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{file} cannot be read: {error}") from error
