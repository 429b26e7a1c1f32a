"""Training files of lines, JSONL and CSV: an index of where each record begins, records on demand.

A file of a gigabyte costs eight bytes a record here, never its text.
"""

import csv
import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from trainer.errors import Fault, InvalidTrainingFile

#: Of one line; a file without line ends must not fill the memory.
MAX_LINE_BYTES = 4 << 20
_BOM = b"\xef\xbb\xbf"


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


class JsonLines:
    """One JSON object a line; lines of nothing but blanks are passed over."""

    def __init__(self, path: Path, param: str) -> None:
        self._path = path
        self._starts, self._lines = array("Q"), array("Q")
        for number, start, line in _lines_of(path, param):
            if line.strip(b"\xef\xbb\xbf \t\r\n"):
                self._starts.append(start)
                self._lines.append(number)

    def __len__(self) -> int:
        return len(self._starts)

    def line(self, index: int) -> int:
        """Return the record's line, from 1."""
        return self._lines[index]

    def row(self, index: int) -> dict[str, Any]:
        """Return the JSON object."""
        with self._path.open("rb") as file:
            file.seek(self._starts[index])
            raw = file.readline(MAX_LINE_BYTES + 1).removeprefix(_BOM)
        try:
            value = json.loads(raw.decode())
        except UnicodeDecodeError as error:
            raise ValueError(f"is not UTF-8 (byte {error.start + 1})") from error
        except json.JSONDecodeError as error:
            raise ValueError(f"is not JSON: {error.msg} at character {error.pos + 1}") from error
        except RecursionError as error:
            raise ValueError("is nested too deeply") from error
        if not isinstance(value, dict):
            raise ValueError(f"is a JSON {type(value).__name__}, expected an object")
        return value


class CsvLines:
    """A table with a header; a record may go over several lines inside quotes."""

    def __init__(self, path: Path, param: str) -> None:
        self._path = path
        self._starts, self._lines = array("Q"), array("Q")
        self._names: list[str] = []
        self._index(param)

    def __len__(self) -> int:
        return len(self._starts)

    def line(self, index: int) -> int:
        """Return the record's first line, from 1."""
        return self._lines[index]

    def row(self, index: int) -> dict[str, Any]:
        """Return column -> text."""
        with self._path.open("rb") as file:
            file.seek(self._starts[index])
            texts = (raw.decode() for raw in iter(lambda: file.readline(MAX_LINE_BYTES), b""))
            values = next(csv.reader(texts, strict=True))
        if len(values) != len(self._names):
            raise ValueError(f"has {len(values)} columns, the header {len(self._names)}")
        return dict(zip(self._names, values, strict=True))

    def _index(self, param: str) -> None:
        """Note where each record begins; the reader takes as many lines as it needs."""
        places: list[tuple[int, int]] = []

        def noted() -> Iterator[str]:
            for number, start, line in _lines_of(self._path, param):
                places.append((number, start))
                try:
                    yield line.removeprefix(_BOM if number == 1 else b"").decode()
                except UnicodeDecodeError as error:
                    raise InvalidTrainingFile([Fault(number, "is not UTF-8")], param) from error

        reader = csv.reader(noted(), strict=True)
        try:
            for values in reader:
                number, start = places[0]
                places.clear()
                if not any(value.strip() for value in values):
                    continue
                if not self._names:
                    self._names = _header(values, number, param)
                else:
                    self._starts.append(start)
                    self._lines.append(number)
        except csv.Error as error:
            line = places[0][0] if places else reader.line_num
            raise InvalidTrainingFile([Fault(line, f"is not CSV: {error}")], param) from error


def _header(values: list[str], line: int, param: str) -> list[str]:
    names = [value.strip() for value in values]
    if len(set(names)) != len(names) or not all(names):
        message = "is no CSV header: its names are empty or stand twice"
        raise InvalidTrainingFile([Fault(line, message)], param)
    return names


def _lines_of(path: Path, param: str) -> Iterator[tuple[int, int, bytes]]:
    """Yield number from 1, start and bytes of each line."""
    start = number = 0
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                message = f"has more than {MAX_LINE_BYTES} bytes; one example stands on one line"
                raise InvalidTrainingFile([Fault(number, message)], param)
            yield number, start, line
            start += len(line)
