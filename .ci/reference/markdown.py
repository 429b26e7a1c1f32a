"""Markdown of the pages that are made from the code."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import fill
from typing import Any

WIDTH = 100
NOTE = "<!-- Made by `./run reference` from {source}; do not edit. -->\n"
_MARKED = re.compile(r"([<>*|\[\]]|(?<!\w)_|_(?!\w))")


def head(title: str, source: str, learn: str) -> Iterator[str]:
    """Yield a page's beginning."""
    yield NOTE.format(source=source)
    yield f"# {title}\n"
    yield from wrapped(learn)


def wrapped(text: str, indent: str = "") -> Iterator[str]:
    """Yield a text's paragraphs in lines of the pages' width, each with a line after it."""
    for paragraph in text.split("\n\n"):
        if words := " ".join(paragraph.split()):
            yield (
                fill(
                    words,
                    WIDTH,
                    subsequent_indent=indent,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
                + "\n"
            )


def table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield a table; nothing without rows."""
    kept = [list(row) for row in rows]
    if kept:
        names = list(names)
        yield f"| {' | '.join(names)} |"
        yield f"|{' -- |' * len(names)}"
        for row in kept:
            yield f"| {' | '.join(cell(text) for text in row)} |"
        yield ""


def cell(text: str) -> str:
    """Return a text as it may stand in a table: one line, without a column's border."""
    return " ".join(text.split()).replace("|", r"\|")


def plain(text: str) -> str:
    """Return a text of which Markdown makes nothing else, code in backquotes left as it is."""
    parts = text.split("`")
    parts[::2] = [_MARKED.sub(r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def shown(value: Any, are_bytes: bool = False) -> str:
    """Return a default as a reader would write it."""
    if value is None or value in ((), ""):
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Path) and value.is_relative_to(Path.home()):
        return f"`~/{value.relative_to(Path.home())}`"
    if are_bytes and value % (1 << 20) == 0:
        mib = value >> 20
        return f"{mib >> 10} GiB" if mib % 1024 == 0 else f"{mib} MiB"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else f"{value}"
