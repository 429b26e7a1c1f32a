"""The options that say what an answer must be like, and the parameters that they stand for."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ._input_texts import json_of, text_of

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
        "guided_grammar": None if grammar is None else text_of(grammar),
    }


def _format(file: Path) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": file.stem, "schema": json_of(file)}}
