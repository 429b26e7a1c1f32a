"""What a training file must look like, whatever base or task it is for: checked line by line.

Pure and streaming: a file of a gigabyte costs the memory of its longest record. The kind is seen by
the first bytes, not by the name: a zip of images, JSON objects, else a table with a header. Lengths
and labels, which need a base, are checked by the job. How records are read: lines.py.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, get_args

from adapters_core.tokens.messages import is_neutral
from registry.training_data.lines import (
    MAX_FAULTS,
    Kind,
    LineFault,
    Table,
    Unreadable,
    named,
    object_of,
    objects_of,
    shown,
    sniffed,
)
from registry.training_data.messages import check_messages, check_tools, is_learned
from registry.training_data.zips import image_names

#: chat: `messages`; completion: `prompt` and `completion`; label: `text` and `label`.
Form = Literal["chat", "completion", "text", "label", "image"]
FORMS: tuple[Form, ...] = get_args(Form)

_PAUSE_EVERY = 64
_EXPECTED = "`messages`, `prompt` and `completion`, `text`, or `text` and `label`"
#: Fields of a chat that may call functions, as OpenAI's API has them.
_CHAT = ("messages", "tools", "parallel_tool_calls")
#: Fields that mean something elsewhere, and what to do.
_ADVICE = {
    "functions": ": write `tools`",
    "weight": ", or put it on a message of the assistant",
    "text_pair": ": texts are read one by one, write both into `text`",
}


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

    def shown(self) -> str:
        """Return the faults as one text; empty if there are none."""
        return shown(self.faults)


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
        """Note a fault."""
        self.faults.append(LineFault.of(line, message))

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
        pause: called now and then, so that a server's other threads can run meanwhile.
    """
    chosen = kind or sniffed(stream)
    tally = _Tally(pause)
    try:
        _READERS[chosen](stream, tally)
    except Unreadable as error:
        tally.fault(error.line, str(error))
    count = sum(tally.forms.values())
    if not count and not tally.faults:
        tally.fault(0, "the file holds no example")
    return FileReport(chosen, count, dict(tally.forms), tuple(tally.faults[:MAX_FAULTS]))


def form_of(row: Mapping[str, Any]) -> Form:
    """Return what kind of example a record is.

    Raises:
        ValueError: it is none; the message follows upon "line 3: ".
    """
    if "messages" in row:
        _check_fields(row, *_CHAT)
        _check_chat(row)
        return "chat"
    if "prompt" in row or "completion" in row:
        _check_text(row, "prompt", may_be_empty=True)
        _check_text(row, "completion")
        _check_fields(row, "prompt", "completion")
        return "completion"
    if "text" not in row:
        raise ValueError(f"has the fields {_names(row)}; expected {_EXPECTED}")
    _check_text(row, "text")
    _check_fields(row, "text", "label")
    if "label" not in row:
        return "text"
    label = row["label"]
    if isinstance(label, bool) or not isinstance(label, str | int | float) or label == "":
        raise ValueError(f"has the label {str(label)[:40]!r}; expected a text or a number")
    return "label"


def _check_chat(row: Mapping[str, Any]) -> None:
    tools, parallel = row.get("tools") or [], row.get("parallel_tool_calls")
    check_tools(tools)
    check_messages(row["messages"], tools)
    if parallel not in (None, True, False):
        raise ValueError(
            f"has {str(parallel)[:40]!r} as `parallel_tool_calls`; it is true or false"
        )
    several = (
        len(each.get("tool_calls") or ()) > 1 for each in row["messages"] if is_learned(each)
    )
    if parallel is False and any(several):
        raise ValueError("has an answer of several calls beside `parallel_tool_calls` of false")


def _check_fields(row: Mapping[str, Any], *taken: str) -> None:
    """Refuse fields that training would ignore; null and empty ones are allowed."""
    for name, value in row.items():
        if name not in taken and not is_neutral(value):
            forms = " and ".join(f"`{one}`" for one in taken)
            raise ValueError(
                f"has the field `{name[:40]}`, which is not learned beside {forms}; remove it"
                f"{_ADVICE.get(name, '')}"
            )


def _read_jsonl(stream: BinaryIO, tally: _Tally) -> None:
    for number, _, line in objects_of(stream):
        tally.take(number, lambda raw=line: form_of(object_of(raw)))  # type: ignore[misc]
        if tally.is_full:
            return


def _read_csv(stream: BinaryIO, tally: _Tally) -> None:
    table = Table(stream)
    if table.names and not set(table.names) & {"messages", "prompt", "completion", "text"}:
        columns = _names(dict.fromkeys(table.names))
        raise Unreadable(f"has the columns {columns}; expected {_EXPECTED}", table.line)
    for number, _, values in table:
        tally.take(number, lambda own=values: form_of(named(table.names, own)))  # type: ignore[misc]
        if tally.is_full:
            return


def _read_images(stream: BinaryIO, tally: _Tally) -> None:
    for _ in image_names(stream):
        tally.take(0, lambda: "image")


_READERS: Mapping[Kind, Callable[[BinaryIO, _Tally], None]] = {
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "images": _read_images,
}


def _check_text(row: Mapping[str, Any], name: str, may_be_empty: bool = False) -> None:
    value = row.get(name)
    if not isinstance(value, str):
        raise ValueError(f"has no text under `{name}`; its fields are {_names(row)}")
    if not value and not may_be_empty:
        raise ValueError(f"has an empty `{name}`")


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in list(row)[:6]) or "none"
