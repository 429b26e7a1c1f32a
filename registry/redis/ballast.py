"""Disk space reserved for the embedded registry, freed when the disk is full.

    <folder>/ballast   SIZE_BYTES, given back when the disk has less than FLOOR_BYTES free

A server that syncs every write ends when a write fails. With the ballast's room, deletions and
heartbeats go on; where that is used up, too, the registry takes no writes at all.
"""

import errno
import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

SIZE_BYTES = 4 << 20
FLOOR_BYTES = 1 << 20


class Ballast:
    """One folder's ballast; of one thread.

    Args:
        folder: of the registry.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / "ballast"

    def look(self) -> bool:
        """Take the ballast, keep it or give it back; return whether there is room to write."""
        free = self._free_bytes()
        if free >= FLOOR_BYTES:
            if free >= 2 * SIZE_BYTES and not self._path.exists():
                self._take()
            return True
        if self._path.exists():
            log.warning(
                "the disk of the registry is full; %d bytes kept for it are used", SIZE_BYTES
            )
            self.give_back()
        return self._free_bytes() >= FLOOR_BYTES

    def free_bytes(self) -> int:
        """Return how much of the disk is free for others, also while the ballast is given back."""
        kept = 0 if self._path.exists() else SIZE_BYTES
        return max(0, self._free_bytes() - kept)

    def give_back(self) -> None:
        """Free the ballast's room. Safe to call twice."""
        self._path.unlink(missing_ok=True)

    def _take(self) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, SIZE_BYTES)
            else:  # macOS
                os.write(descriptor, bytes(SIZE_BYTES))
        except OSError as error:
            with suppress(OSError):
                self.give_back()
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EINVAL, errno.EOPNOTSUPP):
                raise
        finally:
            os.close(descriptor)

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self._folder).free
