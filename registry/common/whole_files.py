"""Files that are there whole or not at all, and on the disk once they are written."""

import os
from pathlib import Path

from adapters_core.part_files import part_of


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file by one with `data`, or leave it as it is.

    Raises:
        OSError: the folder cannot be written.
    """
    part = part_of(path)
    try:
        write_synced(part, data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    sync(path.parent)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file; its bytes are on the disk afterwards, its name once its folder is synced."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Return once a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
