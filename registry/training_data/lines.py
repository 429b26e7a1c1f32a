"""Records of a training file, one by one, wherever they are read: at upload and by the job.

Streaming: a file of a gigabyte costs the memory of its longest record.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

from adapters_core.strict_json import UnclearJson, strict_json

Kind = Literal["jsonl", "csv", "images"]
#: Of one file; more of them rarely say more.
MAX_FAULTS = 10
#: Of one line; a file without line ends must not fill the memory.
MAX_LINE_BYTES = 4 << 20
#: Of a record over several lines; csv itself bounds its fields.
MAX_RECORD_LINES = 100_000
BOM = b"\xef\xbb\xbf"
_SHOWN_CHARS = 200
#: Columns of a table of chats that are JSON; all but the first may be empty.
_JSON_COLUMNS = ("messages", "tools", "parallel_tool_calls")
_MORE = f" (the first {MAX_FAULTS}; there may be more)"


@dataclass(frozen=True)
class LineFault:
    """What is wrong with one line, counted from 1; 0 stands for the whole file."""

    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}" if self.line else self.message

    @classmethod
    def of(cls, line: int, message: str) -> "LineFault":
        """Return the fault with a message that may quote the file: cut, and fit for any output."""
        cut = message if len(message) <= _SHOWN_CHARS else message[: _SHOWN_CHARS - 3] + "..."
        return cls(line, cut.encode("utf-8", "backslashreplace").decode())


def shown(faults: Sequence[LineFault]) -> str:
    """Return faults as one text; empty if there are none."""
    text = "; ".join(map(str, faults))
    return text + _MORE if len(faults) >= MAX_FAULTS else text


class Unreadable(Exception):
    """Nothing can be read from this line on; 0 stands for the whole file."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


def sniffed(stream: BinaryIO) -> Kind:
    """Return the kind of a file by its first bytes."""
    stream.seek(0)
    head = stream.read(64).removeprefix(BOM).lstrip()
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "images"
    return "jsonl" if head.startswith((b"{", b"[")) or b"\0" in head else "csv"


def lines_of(stream: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Yield number from 1, start and bytes of each line.

    Raises:
        Unreadable: a line is too long.
    """
    stream.seek(0)
    number = start = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            limit = f"has more than {MAX_LINE_BYTES} bytes; one example stands on one line"
            raise Unreadable(limit, number)
        yield number, start, line.removeprefix(BOM) if number == 1 else line
        start += len(line)


def objects_of(stream: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Yield the lines of a JSONL file that are not blank, as `lines_of`."""
    return (found for found in lines_of(stream) if found[2].strip(b" \t\r\n"))


def object_of(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line.

    Raises:
        ValueError: it is none; the message follows upon "line 3: ".
    """
    value = strict_json(line.removeprefix(BOM))
    if not isinstance(value, dict):
        raise ValueError(f"is a JSON {type(value).__name__}, expected an object")
    return value


class Table:
    """The records of a CSV file, which may go over several lines inside quotes.

    Args:
        stream: seekable; read from its beginning.

    Raises:
        Unreadable: it has no good header.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._places: list[tuple[int, int]] = []  # of the lines that make the next record
        self._records = csv.reader(self._texts(stream), strict=True)
        first = next(iter(self), None)
        self.line = 0 if first is None else first[0]
        self.names: list[str] = [] if first is None else _header(first[2], first[0])

    def __iter__(self) -> Iterator[tuple[int, int, list[str]]]:
        """Yield first line, start and values of each record after the last one that was yielded.

        Raises:
            Unreadable: it is no UTF-8, or no CSV.
        """
        try:
            for values in self._records:
                line, start = self._places[0]
                self._places.clear()
                if any(value.strip() for value in values):
                    yield line, start, values
        except csv.Error as error:
            line = self._places[0][0] if self._places else self._records.line_num
            raise Unreadable(f"is not CSV: {error}", line) from error

    def _texts(self, stream: BinaryIO) -> Iterator[str]:
        for number, start, line in lines_of(stream):
            self._places.append((number, start))
            if len(self._places) > MAX_RECORD_LINES:
                limit = f"begins a record of more than {MAX_RECORD_LINES} lines"
                raise Unreadable(limit, self._places[0][0])
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                raise Unreadable("is not UTF-8", number) from error


def named(names: Sequence[str], values: Sequence[str]) -> dict[str, Any]:
    """Return a table's record as column -> text; a chat's columns are JSON.

    Raises:
        ValueError: it has another number of columns, or a chat's columns are no JSON.
    """
    if len(values) != len(names):
        raise ValueError(f"has {len(values)} columns, the header {len(names)}")
    row: dict[str, Any] = dict(zip(names, values, strict=True))
    if "messages" in row:
        columns = [name for name in _JSON_COLUMNS if row.get(name) or name == "messages"]
        row |= {name: _column(name, row[name]) for name in columns}
    return row


def _column(name: str, text: str) -> Any:
    """Return the value of a column of JSON."""
    try:
        return strict_json(text)
    except UnclearJson as error:
        raise ValueError(f"has a text under `{name}` that {error}") from error


def _header(values: Sequence[str], line: int) -> list[str]:
    names = [value.strip() for value in values]
    if len(set(names)) != len(names) or not all(names):
        raise Unreadable("is no CSV header: its names are empty or stand twice", line)
    return names
