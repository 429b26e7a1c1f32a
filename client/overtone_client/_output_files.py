"""Files that commands write."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InvalidArgument


def written(path: Path, data: bytes) -> None:
    """Write a file. Raises InvalidArgument where that cannot be done."""
    with _named(path):
        path.write_bytes(data)


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before the work whose result it is to hold.

    What is there stays as it is.

    Raises:
        InvalidArgument: it cannot be written.
    """
    with _named(path):
        target = path.resolve()  # a link's own target is made, and taken away again
        is_new = not target.exists()
        with target.open("ab"):
            pass
        if is_new:
            target.unlink()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidArgument(f"cannot write {path}: {error.strerror}") from error
