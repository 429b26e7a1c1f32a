"""The answered requests of batches, on the store: appended as they come, whole after any crash.

    <folder>/<batch>/<fence>.part   one answer a line: REQUEST KIND CRC32 JSON

Each claim appends to a segment of its own, and reads those of the claims before it once, when it
begins. So a server that was believed dead and goes on disturbs nothing: what it appends later is
read by no claim that has begun. A request that is answered in two segments counts once, by the
earlier one. A line that is cut off or damaged ends its segment; its request is run again.
"""

import os
import shutil
import threading
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Self

from registry.batches.record import BATCH_ID, RequestCounts, check_batch_id
from registry.common.fence import Fence
from registry.common.whole_files import sync
from registry.errors import CorruptRecord

Kind = Literal["output", "error"]
_LETTERS: dict[Kind, bytes] = {"output": b"o", "error": b"e"}
_KINDS = {letter: kind for kind, letter in _LETTERS.items()}
_NONE = 255
_PAUSE_EVERY = 256


@dataclass(frozen=True)
class Answered:
    """One answered request.

    Args:
        number: of the request in its file, from 0.
        kind: which file of results its line belongs to.
        line: JSON without a line end.
    """

    number: int
    kind: Kind
    line: bytes

    def stored(self) -> bytes:
        """Return the line of a segment."""
        words = (b"%d" % self.number, _LETTERS[self.kind], b"%08x" % zlib.crc32(self.line))
        return b" ".join((*words, self.line)) + b"\n"

    @classmethod
    def read(cls, raw: bytes) -> "Answered | None":
        """Return the answer of a segment's line; None of one that is cut off or damaged."""
        words = raw.rstrip(b"\n").split(b" ", 3)
        if not raw.endswith(b"\n") or len(words) < 4 or not words[0].isdigit():
            return None
        number, letter, crc, line = words
        if letter not in _KINDS or crc != b"%08x" % zlib.crc32(line):
            return None
        return cls(int(number), _KINDS[letter], line)


class BatchFolders:
    """The batches' folders; servers that share them can go on with each other's batches.

    Args:
        folder: made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(
        self, fence: Fence, num_requests: int, pause: Callable[[], None] = lambda: None
    ) -> "Answers":
        """Return the answers of a batch so far, with a new segment for this claim's.

        Args:
            fence: of the claim.
            num_requests: of the batch.
            pause: called now and then while earlier answers are read.

        Raises:
            OSError: the store cannot be read or written.
        """
        folder = self._folder / check_batch_id(fence.job)
        folder.mkdir(parents=True, exist_ok=True)
        return Answers(folder, fence.number, num_requests, pause)

    def all(self) -> Iterator[tuple[str, Path]]:
        """Return every batch's folder that is there: the batch's id and the path."""
        for path in self._folder.glob("*"):
            if BATCH_ID.fullmatch(path.name):
                yield path.name, path

    def remove(self, batch_id: str) -> None:
        """Remove the folder of a batch that is over. Safe to call twice."""
        shutil.rmtree(self._folder / check_batch_id(batch_id), ignore_errors=True)


class Answers:
    """The answers of one batch under one claim; safe to use from many threads.

    Memory: 11 bytes a request. `close` it.

    Args:
        folder: of the batch.
        fence: number of the claim.
        num_requests: of the batch.
        pause: called now and then while earlier answers are read.
    """

    def __init__(
        self, folder: Path, fence: int, num_requests: int, pause: Callable[[], None]
    ) -> None:
        self._folder = folder
        self._segments: list[Path] = []
        self._segment = array("H", bytes(2 * num_requests))  # of each request's answer
        self._start = array("q", bytes(8 * num_requests))
        self._kind = bytearray([_NONE]) * num_requests
        for path in _segments_before(folder, fence):
            self._read(path, pause)
        self._segments.append(folder / f"{fence}.part")
        self._file = self._segments[-1].open("wb", buffering=0)
        self._size = 0
        self._lock = threading.Lock()  # of what is appended
        sync(folder)

    def __contains__(self, number: int) -> bool:
        return self._kind[number] != _NONE

    @property
    def counts(self) -> RequestCounts:
        """Return how many requests there are, are answered, and have failed."""
        letters = [self._kind.count(_LETTERS[kind]) for kind in ("output", "error")]
        return RequestCounts(len(self._kind), *letters)

    @property
    def are_whole(self) -> bool:
        """Return whether every request has an answer."""
        return self._kind.find(_NONE) < 0

    def missing(self) -> Iterator[int]:
        """Yield the requests without an answer."""
        at = self._kind.find(_NONE)
        while at >= 0:
            yield at
            at = self._kind.find(_NONE, at + 1)

    def add(self, answers: Sequence[Answered]) -> None:
        """Append answers; those of requests that have one already are left out.

        What this process is killed after is kept. A machine that loses its power may lose what was
        not synced: those requests are run again.

        Raises:
            OSError: the disk is full or cannot be written; none of them was kept.
        """
        with self._lock:
            new = {one.number: one for one in answers if one.number not in self}
            lines = [(one, one.stored()) for one in new.values()]
            self._append(b"".join(stored for _, stored in lines))
            for one, stored in lines:
                self._enter(one, len(self._segments) - 1, self._size)
                self._size += len(stored)

    def sync(self) -> None:
        """Return once what was added is on the disk."""
        os.fsync(self._file.fileno())

    def write(self, kind: Kind, out: BinaryIO, pause: Callable[[], None] = lambda: None) -> int:
        """Write the lines of a kind in the order of their requests; return how many.

        Raises:
            OSError: the disk is full, or a segment cannot be read.
            CorruptRecord: an answer is damaged; the next claim runs its request again.
        """
        letter, count = _LETTERS[kind][0], 0
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("rb")) for path in self._segments]
            for number, own in enumerate(self._kind):
                if own != letter:
                    continue
                out.write(self._line(files[self._segment[number]], number) + b"\n")
                count += 1
                if count % _PAUSE_EVERY == 0:
                    pause()
        return count

    def close(self) -> None:
        """Close the segment. Safe to call twice."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, data: bytes) -> None:
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            self._file.truncate(self._size)
            self._file.seek(self._size)
            raise

    def _read(self, path: Path, pause: Callable[[], None]) -> None:
        self._segments.append(path)
        start = 0
        with path.open("rb") as file:
            for count, raw in enumerate(file):
                one = Answered.read(raw)
                if one is None or one.number >= len(self._kind):
                    return
                if one.number not in self:
                    self._enter(one, len(self._segments) - 1, start)
                start += len(raw)
                if count % _PAUSE_EVERY == 0:
                    pause()

    def _enter(self, one: Answered, segment: int, start: int) -> None:
        self._kind[one.number] = _LETTERS[one.kind][0]
        self._segment[one.number], self._start[one.number] = segment, start

    def _line(self, file: BinaryIO, number: int) -> bytes:
        file.seek(self._start[number])
        one = Answered.read(file.readline())
        if one is None or one.number != number:
            raise CorruptRecord(f"{self._folder.name}: the answer of request {number} is damaged")
        return one.line


def _segments_before(folder: Path, fence: int) -> list[Path]:
    """Return the segments of earlier claims, the oldest first."""
    numbers = [int(path.stem) for path in folder.glob("*.part") if path.stem.isdecimal()]
    return [folder / f"{number}.part" for number in sorted(numbers) if number < fence]
