"""A small disk of a test's own, which can really be full."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system of `size` at `folder`; skip the test where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a file system of its own needs the right to mount one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, free_bytes: int = 0) -> Path:
    """Fill the disk but for `free_bytes`; return the file that does, which grows."""
    rubbish = folder / "rubbish"
    with rubbish.open("ab") as file:
        found = os.statvfs(folder)
        size = found.f_bavail * found.f_frsize - free_bytes
        while size > 0:
            size -= file.write(bytes(min(size, 1 << 20)))
    return rubbish
