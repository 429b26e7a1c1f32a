"""A training job's history, in order: events, metrics and checkpoints.

An attempt that resumes from a checkpoint reports some steps again; every entry is kept once.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from registry.errors import CorruptRecord

MAX_MESSAGE_CHARS = 4000
MAX_DATA_BYTES = 16 * 1024
LEVELS = ("debug", "info", "warn", "error")
#: A point's time beside its values, as `job_report.lua` stores it.
_CREATED_AT = "created_at"


@dataclass(frozen=True)
class Event:
    """One line of a job's history.

    Args:
        id: its place; later events have greater ones. Reading goes on after it.
        created_at: seconds since 1970.
        level: `debug`, `info`, `warn` or `error`.
        message: for people.
        type: `message`, or what `data` is about.
        data: a JSON object.
    """

    id: str
    created_at: float
    level: str
    message: str
    type: str
    data: dict[str, Any]

    @classmethod
    def read(cls, id_: bytes, entry: Mapping[bytes, bytes]) -> Self:
        """Read one stream entry."""
        text = _text(id_, entry, ("created_at", "level", "message", "type", "data"))
        return cls(
            id=id_.decode(),
            created_at=float(text["created_at"]),
            level=text["level"],
            message=text["message"],
            type=text["type"],
            data=json.loads(text["data"]),
        )


@dataclass(frozen=True)
class MetricPoint:
    """What was measured at one step.

    Args:
        id: its place, from which reading goes on.
        step: of the training.
        created_at: seconds since 1970; 0 where an older version has stored the point.
        values: by their names.
    """

    id: str
    step: int
    created_at: float
    values: dict[str, float]

    @classmethod
    def read(cls, id_: bytes, entry: Mapping[bytes, bytes]) -> Self:
        """Read one stream entry, whose place is its step."""
        values = {name.decode(): float(value) for name, value in entry.items()}
        return cls(id_.decode(), _step(id_), values.pop(_CREATED_AT, 0.0), values)


@dataclass(frozen=True)
class Checkpoint:
    """A state of the training that a later attempt can go on from."""

    step: int
    name: str
    created_at: float

    @classmethod
    def read(cls, id_: bytes, entry: Mapping[bytes, bytes]) -> Self:
        """Read one stream entry, whose place is its step."""
        text = _text(id_, entry, ("name", "created_at"))
        return cls(_step(id_), text["name"], float(text["created_at"]))


#: One thing to report: its kind, then its words, as `job_report.lua` takes them.
Entry = tuple[str, tuple[str, ...]]


def event_entry(
    level: str, message: str, data: dict[str, Any] | None, now: float, type_: str = "message"
) -> Entry:
    """Return an event to report; what is too long for a line of history is cut or left out."""
    raw = json.dumps(data or {}, separators=(",", ":"), default=str)
    if len(raw) > MAX_DATA_BYTES:
        raw = '{"left_out":"too large"}'
    known = level if level in LEVELS else "info"
    return "event", (repr(now), known, shown(message), type_, raw)


def metrics_entry(step: int, values: Mapping[str, float], now: float) -> Entry:
    """Return a step's measurements to report; its `tokens` are added to the job's.

    NaN and infinities have no place in JSON and are left out.
    """
    finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
    words = [word for name, value in finite.items() for word in (name, repr(value))]
    return "metrics", (str(step), repr(now), *words)


def checkpoint_entry(step: int, name: str, now: float) -> Entry:
    """Return a checkpoint to report."""
    return "checkpoint", (str(step), name, repr(now))


def progress_entry(step: int, num_steps: int, seconds_left: float | None) -> Entry:
    """Return how far a job is."""
    left = "" if seconds_left is None else repr(float(seconds_left))
    return "progress", (str(step), str(num_steps), left)


def flat(entries: Sequence[Entry]) -> list[str]:
    """Return entries as a script's arguments: each its kind, its number of words, its words."""
    return [word for kind, words in entries for word in (kind, str(len(words)), *words)]


def shown(message: str) -> str:
    """Return text that any reply can carry: bounded, and without lone surrogates."""
    if len(message) > MAX_MESSAGE_CHARS:
        message = message[: MAX_MESSAGE_CHARS - 1] + "…"
    return message.encode("utf-8", "backslashreplace").decode()


def _step(id_: bytes) -> int:
    return int(id_.partition(b"-")[0])


def _text(id_: bytes, entry: Mapping[bytes, bytes], fields: Sequence[str]) -> dict[str, str]:
    text = {name.decode(): value.decode() for name, value in entry.items()}
    if not text.keys() >= set(fields):
        raise CorruptRecord(f"a job's entry {id_!r} has not the fields {', '.join(fields)}")
    return text
