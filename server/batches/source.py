"""The requests of a batch that have no answer yet, read a few at a time beside the event loop."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from registry.batches.requests import BatchRequest, requests_of
from registry.batches.segments import Answers

#: Read at once: so many lines, or those that begin within so many bytes.
_LINES, _BYTES = 32, 1 << 20

#: Runs a blocking function on a thread.
Beside = Callable[..., Awaitable[Any]]


class Sourced(NamedTuple):
    """A request, its number in the file, and the bytes of its line."""

    number: int
    request: BatchRequest
    size_bytes: int


class Source:
    """Reads a batch's file from its beginning, without the requests that are answered.

    Memory: what is read at once, whatever the file holds. `close` it.

    Args:
        path: of the file.
        answers: so far.
        beside: runs what blocks.
    """

    def __init__(self, path: Path, answers: Answers, beside: Beside) -> None:
        self._path = path
        self._file = path.open("rb")
        self._answers, self._beside = answers, beside
        self._requests = requests_of(self._file)
        self._read: deque[Sourced] = deque()
        self._lock = asyncio.Lock()

    async def next(self) -> Sourced | None:
        """Return the next request; None after the last one."""
        async with self._lock:
            if not self._read:
                self._read.extend(await self._beside(self._some))
            return self._read.popleft() if self._read else None

    def rest(self) -> Iterator[Sourced]:
        """Yield the requests without an answer, from the file's beginning on; it blocks."""
        with self._path.open("rb") as file:
            for number, _, raw in requests_of(file):
                if number not in self._answers:
                    yield Sourced(number, BatchRequest.read(raw), len(raw))

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        self._file.close()

    def _some(self) -> list[Sourced]:
        found: list[Sourced] = []
        size = 0
        for number, _, raw in self._requests:
            if number in self._answers:
                continue
            found.append(Sourced(number, BatchRequest.read(raw), len(raw)))
            size += len(raw)
            if len(found) >= _LINES or size >= _BYTES:
                break
        return found
