"""Copies of a bucket's blobs on this machine, up to a size; any of them can be lost.

Several processes may share the folder. Each counts what it adds and looks at the folder when that
is a sixteenth of the limit, so the size is about the limit's.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from registry.adapters.blobs import BlobPaths, BlobStore
from registry.errors import BlobDamaged

#: About so much is kept unless a setting says otherwise.
CACHE_BYTES = 10 << 30
#: Of the limit, what a process adds before it looks.
_LOOK_AT = 1 / 16
#: Of the limit, what stays when the limit is reached.
_KEPT = 0.9
#: What was asked for of late may be open or about to be, so it stays above the limit, too.
_IN_USE_S = 60.0


class BlobCache:
    """Adapters' files by digest, the most recently used ones; safe to use from many threads.

    Args:
        folder: made when first written to.
        limit_bytes: about so much is kept.
        clock: seconds since 1970.
    """

    def __init__(
        self, folder: Path, limit_bytes: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._blobs = BlobStore(folder)
        self._limit, self._clock = limit_bytes, clock
        self._guard = threading.Lock()  # guards the count
        self._num_added = limit_bytes  # the first addition looks

    def open_whole(self, digest: str) -> BlobPaths:
        """Return where the files are, after they were held against their digest.

        Raises:
            BlobMissing: they are not here.
            BlobDamaged: they were not what they had been, and are removed.
        """
        try:
            paths = self._blobs.open_whole(digest)
        except BlobDamaged:
            self.remove(digest)
            raise
        self._note_use(paths)
        return paths

    def put(self, digest: str, file: Path, config: bytes) -> None:
        """Keep a copy.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        self._blobs.put(digest, file, config)
        self._note_use(self._blobs.open(digest))
        if self._must_look(file.stat().st_size + len(config)):
            self._shrink()

    def remove(self, digest: str) -> None:
        """Remove a copy. Safe to call twice."""
        self._blobs.remove(digest, lambda _: False)

    def free_bytes(self) -> int:
        """Return how much more the disk takes."""
        return self._blobs.free_bytes()

    def _note_use(self, paths: BlobPaths) -> None:
        os.utime(paths.file.parent, (self._clock(), self._clock()))

    def _must_look(self, added: int) -> bool:
        with self._guard:
            self._num_added += added
            is_due = self._num_added >= self._limit * _LOOK_AT
            if is_due:
                self._num_added = 0
            return is_due

    def _shrink(self) -> None:
        """Remove the least recently used copies if all are over the limit."""
        held = sorted(self._held())
        total = sum(size for _, size, _ in held)
        if total <= self._limit:
            return
        for used_at, size, digest in held:
            if total <= self._limit * _KEPT or used_at > self._clock() - _IN_USE_S:
                return
            self.remove(digest)
            total -= size

    def _held(self) -> Iterator[tuple[float, int, str]]:
        """Yield when each copy was last used, its bytes and its digest."""
        for digest, place in self._blobs.all():
            try:
                size = sum(path.stat().st_size for path in place.iterdir())
                yield place.stat().st_mtime, size, digest
            except FileNotFoundError:  # another process removed it
                continue
