"""Training files of lines, JSONL and CSV: an index of where each record begins, records on demand.

A file of a gigabyte costs some bytes a record here, never its text. Records are read, and their
faults found, by the same code as at upload: registry/training_data/lines.py.
"""

import csv
from array import array
from pathlib import Path
from typing import Any, Protocol

from registry.training_data.lines import BOM, MAX_LINE_BYTES, Table, named, object_of, objects_of


class Rows(Protocol):
    """The records of a file, by number."""

    def __len__(self) -> int:
        """Return how many there are."""

    def row(self, index: int) -> dict[str, Any]:
        """Return one record.

        Raises:
            ValueError: it is malformed; the message says how.
        """

    def line(self, index: int) -> int:
        """Return the line on which it begins, from 1."""


class _Indexed:
    """Where each record of a file begins, and on which line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts, self._lines = array("Q"), array("Q")

    def __len__(self) -> int:
        return len(self._starts)

    def line(self, index: int) -> int:
        """Return the record's first line, from 1."""
        return self._lines[index]

    def _note(self, line: int, start: int) -> None:
        self._starts.append(start)
        self._lines.append(line)


class JsonLines(_Indexed):
    """One JSON object a line; lines of nothing but blanks are passed over.

    Raises:
        Unreadable: a line is too long.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with path.open("rb") as file:
            for number, start, _ in objects_of(file):
                self._note(number, start)

    def row(self, index: int) -> dict[str, Any]:
        """Return the JSON object."""
        with self._path.open("rb") as file:
            file.seek(self._starts[index])
            return object_of(file.readline(MAX_LINE_BYTES + len(BOM)))


class CsvLines(_Indexed):
    """A table with a header; a record may go over several lines inside quotes.

    Raises:
        Unreadable: it is no table from some line on.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with path.open("rb") as file:
            table = Table(file)
            self._names = table.names
            for number, start, _ in table:
                self._note(number, start)

    def row(self, index: int) -> dict[str, Any]:
        """Return column -> text."""
        with self._path.open("rb") as file:
            file.seek(self._starts[index])
            texts = (raw.decode() for raw in iter(lambda: file.readline(MAX_LINE_BYTES), b""))
            return named(self._names, next(csv.reader(texts, strict=True)))
