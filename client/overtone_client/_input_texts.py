"""Texts that commands read: from standard input, or a file."""

import json
import sys
from pathlib import Path
from typing import Any

from ._upload import readable
from .errors import InvalidArgument


def lines_given(texts: list[str] | None) -> list[str]:
    """The texts of the command line, else one from each line of standard input.

    Raises:
        InvalidArgument: there is none.
    """
    found = texts or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not found:
        raise InvalidArgument("there is no text, neither as an argument nor in standard input")
    return found


def whole_input() -> str:
    """Standard input. Raises InvalidArgument where there is nothing in it."""
    text = sys.stdin.read()
    if not text.strip():
        raise InvalidArgument("there is no text in standard input")
    return text


def text_of(file: Path) -> str:
    """What a file of text holds. Raises InvalidArgument where it cannot be read."""
    try:
        with readable(file):
            return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"cannot read {file}: it is not UTF-8 ({error.reason})") from error


def json_of(file: Path) -> Any:
    """What a file of JSON holds. Raises InvalidArgument where it cannot be read."""
    text = text_of(file)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{file} cannot be read as JSON: {error}") from error
