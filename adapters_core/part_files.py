"""Names for what is written beside a file before it takes that file's place."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def part_of(path: Path) -> Path:
    """Return a name beside `path`, of this process, that no other thread or process is given.

    The process's number alone is shared: by its threads, and by two containers with one folder.
    """
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a part file to write, which replaces `path` at the end; after a failure it is gone."""
    part = part_of(path)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
