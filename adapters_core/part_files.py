"""Names for what is written beside a file before it takes that file's place."""

import os
import secrets
from pathlib import Path


def part_of(path: Path) -> Path:
    """Return a name beside `path`, of this process, that no other thread or process is given.

    The process's number alone is shared: by its threads, and by two containers with one folder.
    """
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
