"""Answers in JSON that may be of many megabytes, without keeping the event loop from all others.

The interpreter encodes one value in one go, and meanwhile runs nothing else, on no thread. So a
large answer is encoded in slices, on a thread, and sent piece by piece.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from fastapi import Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")

#: Values that take a few milliseconds, and those that are encoded in one go beside the event loop.
_FEW, _AT_ONCE = 4_000, 500
#: Items of a list that are counted one by one.
_FEW_ITEMS = 128
#: Bytes of a piece that is sent.
_PIECE = 1 << 18

_ENCODER: dict[str, Any] = {
    "ensure_ascii": False,
    "allow_nan": False,
    "separators": (",", ":"),
    "default": lambda later: later[:],
}
_encode = json.JSONEncoder(**_ENCODER).encode


#: What Python's `splitlines`, and readers of lines built on it, take for an end of a line.
_LINE_ENDS = {"\x85": r"\u0085", "\u2028": r"\u2028", "\u2029": r"\u2029"}


def one_line(text: str) -> str:
    """Return a JSON text as one line for every reader: other ends of lines are escaped, too.

    In JSON they stand within strings only; those below U+0020 are always escaped.
    """
    for end, escaped in _LINE_ENDS.items():
        if end in text:
            text = text.replace(end, escaped)
    return text


class MadeLater:
    """A long list in an answer, whose items are made when they are encoded.

    A million objects at once cost seconds: they are made, searched for garbage, and freed.

    Args:
        length: of the list.
        item: makes one, by its number.
    """

    def __init__(self, length: int, item: Callable[[int], Any]) -> None:
        self._length = length
        self._item = item

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, which: slice) -> list[Any]:
        return list(map(self._item, range(*which.indices(self._length))))


def listed(length: int, item: Callable[[int], Any]) -> Any:
    """Return a list of an answer: as it is if it is short, else `MadeLater`."""
    later = MadeLater(length, item)
    return later if length > _FEW_ITEMS else later[:]


class JSONAnswer(Response):
    """An answer whose encoded pieces are sent one after another."""

    media_type = "application/json"

    def __init__(self, pieces: Sequence[bytes], headers: Mapping[str, str] | None = None) -> None:
        self.status_code = 200
        self.background = None
        size = sum(map(len, pieces))
        self.init_headers({**(headers or {}), "Content-Length": str(size)})
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the headers and the pieces."""
        head = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **head})
        for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def json_answer(value: Any, headers: Mapping[str, str] | None = None) -> JSONAnswer:
    """Return the answer with a JSON value, encoded beside the event loop if it is large."""
    return JSONAnswer(await beside(num_values(value), lambda: list(pieces_of(value))), headers)


async def beside(num_values: int, work: Callable[[], T]) -> T:
    """Return the result of `work`, done on a thread if it is about many values.

    Args:
        num_values: that it makes or reads.
        work: in Python code, or in calls that each take a moment.
    """
    return work() if num_values <= _FEW else await asyncio.to_thread(work)


def pieces_of(value: Any) -> Iterator[bytes]:
    """Yield the JSON of a value in pieces of some hundred kilobytes."""
    texts: list[str] = []
    size = 0
    for text in _slices(value):
        texts.append(text)
        size += len(text)
        if size >= _PIECE:
            yield "".join(texts).encode()
            texts, size = [], 0
    yield "".join(texts).encode()


def _slices(value: Any) -> Iterator[str]:
    """Yield the JSON of a value in texts of a thousand values at most."""
    if num_values(value) <= _AT_ONCE:
        yield _encode(value)
    elif isinstance(value, dict):
        for number, (key, item) in enumerate(value.items()):
            yield f"{',' if number else '{'}{_encode(key)}:"
            yield from _slices(item)
        yield "}"
    else:
        length = max(1, _AT_ONCE * len(value) // num_values(value))
        for start in range(0, len(value), length):
            yield "," if start else "["
            items = value[start : start + length]
            if num_values(items) <= 2 * _AT_ONCE:
                yield _encode(items)[1:-1]
            else:
                yield from _each(items)
        yield "]"


def _each(items: Sequence[Any]) -> Iterator[str]:
    for number, item in enumerate(items):
        yield "," if number else ""
        yield from _slices(item)


def num_values(value: Any) -> int:
    """Return about how many values there are in one; items of a long list are taken to be alike."""
    if isinstance(value, dict):
        return sum(map(num_values, value.values())) + 1
    if not isinstance(value, list | MadeLater) or not value:
        return 1
    if len(value) > _FEW_ITEMS:  # the first may be null: there is nothing before it
        return len(value) * num_values(value[-1:][0])
    return sum(map(num_values, value[:])) + 1
