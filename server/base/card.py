"""One GPU that several servers share: they start one after the other, and know what each may take.

A server's memory is measured when it starts, and taken little by little: what is free then may
belong to another one. So each leaves in the temporary folder how many bytes it may take, in a file
that it keeps locked; the system lets go of the lock when the process ends, however it ends.
"""

import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOG = logging.getLogger("overtone.card")


class Card:
    """A GPU's locks.

    Args:
        folder: of this GPU; made where it is not there.
        name: of the GPU, for the log.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._claim: int | None = None
        self._path: Path | None = None
        folder.mkdir(exist_ok=True)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until no other server starts on this GPU; none does within the block."""
        lock = os.open(self._folder / "start", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _locked(lock):
                _LOG.info("another server is starting on %s; this one waits for it", self._name)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def claim(self, num_bytes: int) -> None:
        """Let other servers know how many bytes this one may take, until it ends; in its turn."""
        self.release()
        self._claim, name = tempfile.mkstemp(dir=self._folder, prefix="claim-")
        self._path = Path(name)
        fcntl.flock(self._claim, fcntl.LOCK_EX)
        os.write(self._claim, b"%d" % num_bytes)

    def release(self) -> None:
        """Take this server's claim back."""
        if self._claim is not None and self._path is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._claim)
        self._claim = self._path = None

    def others(self) -> int:
        """Return the bytes that other servers which run may take; in this one's turn."""
        claims = [path for path in self._folder.glob("claim-*") if path != self._path]
        return sum(map(_claimed, claims))


def _claimed(path: Path) -> int:
    """Return what a claim says; one whose server has ended is removed, and says nothing.

    Servers end at any time, and remove their own.
    """
    try:
        claim = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        if _locked(claim):
            path.unlink(missing_ok=True)
            return 0
        return int(os.read(claim, 32))
    finally:
        os.close(claim)


def _locked(file: int) -> bool:
    """Return whether a lock was free and is taken now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
