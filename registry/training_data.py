"""What a training file must look like, whatever base or task it is for: checked line by line.

Pure and streaming: a file of a gigabyte costs the memory of its longest line. The kind is seen by
the first bytes, not by the name: a zip of images, JSON objects, else a table with a header. Lengths
and labels, which need a base, are checked by the job.
"""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, get_args

from registry.training_zip import Unreadable, image_names

Kind = Literal["jsonl", "csv", "images"]
#: chat: `messages`; completion: `prompt` and `completion`; label: `text` and `label`.
Form = Literal["chat", "completion", "text", "label", "image"]
FORMS: tuple[Form, ...] = get_args(Form)

#: Of one file; more of them rarely say more.
MAX_FAULTS = 10
#: Of one line; a file without line ends must not fill the memory.
MAX_LINE_BYTES = 4 << 20
_SHOWN_CHARS = 200
_BOM = b"\xef\xbb\xbf"
_PAUSE_EVERY = 64
_EXPECTED = "`messages`, `prompt` and `completion`, `text`, or `text` and `label`"


@dataclass(frozen=True)
class LineFault:
    """What is wrong with one line, counted from 1; 0 stands for the whole file."""

    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}" if self.line else self.message


@dataclass(frozen=True)
class FileReport:
    """What reading a whole file has shown.

    Args:
        kind: by its first bytes.
        num_examples: those without a fault.
        forms: how many examples have which form.
        faults: the first ten, in the file's order.
    """

    kind: Kind
    num_examples: int
    forms: dict[str, int]
    faults: tuple[LineFault, ...]

    @property
    def is_valid(self) -> bool:
        """Whether there is anything to train on and nothing is wrong."""
        return not self.faults

    def shown(self) -> str:
        """Return the faults as one text; empty if there are none."""
        text = "; ".join(map(str, self.faults))
        more = len(self.faults) == MAX_FAULTS
        return f"{text} (the first {MAX_FAULTS}; there may be more)" if more else text


@dataclass
class _Tally:
    """Counts forms and collects faults while a file is read."""

    pause: Callable[[], None]
    forms: Counter[str] = field(default_factory=Counter)
    faults: list[LineFault] = field(default_factory=list)
    num_seen: int = 0

    def take(self, line: int, read: Callable[[], Form]) -> None:
        """Count one example, or note why it is none."""
        self.num_seen += 1
        if self.num_seen % _PAUSE_EVERY == 0:
            self.pause()
        try:
            self.forms[read()] += 1
        except ValueError as error:
            self.fault(line, str(error))

    def fault(self, line: int, message: str) -> None:
        """Note a fault; long ones are cut, for they quote the file."""
        cut = message if len(message) <= _SHOWN_CHARS else message[: _SHOWN_CHARS - 3] + "..."
        self.faults.append(LineFault(line, cut.encode("utf-8", "backslashreplace").decode()))

    @property
    def is_full(self) -> bool:
        return len(self.faults) >= MAX_FAULTS


def check_lines(
    stream: BinaryIO, kind: Kind | None = None, pause: Callable[[], None] = lambda: None
) -> FileReport:
    """Read a training file to its end, or to its tenth fault.

    Args:
        stream: seekable, at any place.
        kind: None goes by the first bytes.
        pause: called now and then, so that a server's other threads get on beside it.
    """
    chosen = kind or sniffed(stream)
    tally = _Tally(pause)
    try:
        _READERS[chosen](stream, tally)
    except _Broken as error:
        tally.fault(error.line, str(error))
    count = sum(tally.forms.values())
    if not count and not tally.faults:
        tally.fault(0, "the file holds no example")
    return FileReport(chosen, count, dict(tally.forms), tuple(tally.faults[:MAX_FAULTS]))


def sniffed(stream: BinaryIO) -> Kind:
    """Return the kind of a file by its first bytes."""
    stream.seek(0)
    head = stream.read(64).removeprefix(_BOM).lstrip()
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "images"
    return "jsonl" if head.startswith((b"{", b"[")) or b"\0" in head else "csv"


def form_of(row: Mapping[str, Any]) -> Form:
    """Return what kind of example a record is.

    Raises:
        ValueError: it is none; the message follows upon "line 3: ".
    """
    if "messages" in row:
        _check_messages(row["messages"])
        return "chat"
    if "prompt" in row or "completion" in row:
        _check_text(row, "prompt", may_be_empty=True)
        _check_text(row, "completion")
        return "completion"
    if "text" not in row:
        raise ValueError(f"has the fields {_names(row)}; expected {_EXPECTED}")
    _check_text(row, "text")
    if "label" not in row:
        return "text"
    label = row["label"]
    if isinstance(label, bool) or not isinstance(label, str | int | float) or label == "":
        raise ValueError(f"has the label {str(label)[:40]!r}; expected a text or a number")
    return "label"


class _Broken(Exception):
    """Nothing can be read from this line on."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def _read_jsonl(stream: BinaryIO, tally: _Tally) -> None:
    for number, line in _lines(stream):
        if line.strip(b"\xef\xbb\xbf \t\r\n"):
            tally.take(number, lambda raw=line: form_of(_object(raw)))  # type: ignore[misc]
        if tally.is_full:
            return


def _read_csv(stream: BinaryIO, tally: _Tally) -> None:
    at = 1

    def texts() -> Iterator[str]:
        nonlocal at
        for at, line in _lines(stream):
            try:
                yield line.removeprefix(_BOM if at == 1 else b"").decode()
            except UnicodeDecodeError as error:
                raise _Broken(at, "is not UTF-8") from error

    reader = csv.reader(texts(), strict=True)
    try:
        names = _header(next(reader, []), at)
        start = at + 1
        for values in reader:
            if values:
                tally.take(start, lambda: form_of(_named(names, values)))  # noqa: B023
            start = at + 1
            if tally.is_full:
                return
    except csv.Error as error:
        raise _Broken(at, f"is not CSV: {error}") from error


def _read_images(stream: BinaryIO, tally: _Tally) -> None:
    try:
        names = image_names(stream)
    except Unreadable as error:
        raise _Broken(error.line, str(error)) from error
    for _ in names:
        tally.take(0, lambda: "image")


_READERS: Mapping[Kind, Callable[[BinaryIO, _Tally], None]] = {
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "images": _read_images,
}


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    stream.seek(0)
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            limit = f"has more than {MAX_LINE_BYTES} bytes; one example stands on one line"
            raise _Broken(number, limit)
        yield number, line


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw.removeprefix(_BOM).decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 (byte {error.start + 1})") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"is a JSON {type(value).__name__}, expected an object")
    return value


def _header(values: Sequence[str], line: int) -> list[str]:
    names = [value.strip() for value in values]
    if len(set(names)) != len(names) or not all(names):
        raise _Broken(line, "is no CSV header: its names are empty or stand twice")
    if names and not set(names) & {"messages", "prompt", "completion", "text"}:
        shown = ", ".join(f"`{name}`" for name in names[:6])
        raise _Broken(line, f"has the columns {shown}; expected {_EXPECTED}")
    return names


def _named(names: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    if len(values) != len(names):
        raise ValueError(f"has {len(values)} columns, the header {len(names)}")
    return dict(zip(names, values, strict=True))


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise ValueError("has messages that are no list of messages")
    for number, message in enumerate(messages):
        words = [message.get(name) for name in ("role", "content")] if _is_object(message) else []
        if not words or not all(isinstance(word, str) for word in words):
            raise ValueError(f"has a message, number {number + 1}, without role and content")
    if not any(message["role"] == "assistant" for message in messages):
        raise ValueError("has no message of the role assistant to learn from")


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _check_text(row: Mapping[str, Any], name: str, may_be_empty: bool = False) -> None:
    value = row.get(name)
    if not isinstance(value, str):
        raise ValueError(f"has no text under `{name}`; its fields are {_names(row)}")
    if not value and not may_be_empty:
        raise ValueError(f"has an empty `{name}`")


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in list(row)[:6]) or "none"
