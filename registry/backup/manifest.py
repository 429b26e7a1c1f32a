"""A backup's table of contents: every file with its size and digest, and what made it.

    {"format": 1, "program": "0.2.0", "schema": 2, "taken_at": <seconds since 1970>,
     "registry": <id>, "store": <id>, "missing": [...],
     "files": {"<path>": {"sha256": <64 hex digits>, "size_bytes": ...}, ...}}

It is written last, so that a folder without one is no backup.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

from registry.common.whole_files import write_whole
from registry.errors import BackupUnusable

NAME = "manifest.json"
_FORMAT = 1
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Content:
    """One file's bytes, without the bytes."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """What a backup is and holds.

    Args:
        program: the version that made it.
        schema: of the registry's keys (registry/store/schema.py).
        taken_at: when the registry was read, in seconds since 1970.
        registry, store: their ids.
        files: path below the backup -> its content.
        missing: what the registry named and the store did not have, or not whole.
    """

    program: str
    schema: int
    taken_at: float
    registry: str
    store: str
    files: Mapping[str, Content]
    missing: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the manifest of a backup.

        Raises:
            BackupUnusable: the folder has none, or one of another program.
        """
        try:
            given = json.loads((folder / NAME).read_text())
            if given["format"] != _FORMAT:
                raise ValueError(f"its format is {given['format']!r}, not {_FORMAT}")
            return cls._of(given)
        except FileNotFoundError as error:
            raise BackupUnusable(
                f"{folder} is no backup: it has no {NAME}, which is written last"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BackupUnusable(f"{folder / NAME} cannot be read: {error}") from error

    @classmethod
    def _of(cls, given: dict[str, Any]) -> Self:
        words = {name: given[name] for name in cls.__dataclass_fields__}
        files = {_inside(path): Content(**content) for path, content in words["files"].items()}
        return cls(**words | {"files": files, "missing": tuple(words["missing"])})

    def write(self, folder: Path) -> None:
        """Make the folder's other contents a backup."""
        words = {"format": _FORMAT, **asdict(self)}
        write_whole(folder / NAME, f"{json.dumps(words, indent=1)}\n".encode())

    def check(self, folder: Path) -> None:
        """Hold every file of the backup against its digest.

        Raises:
            BackupUnusable: some are not there or not what they were; the first are named.
        """
        wrong = [f"{path} ({fault})" for path, fault in self._faults(folder)]
        if wrong:
            more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise BackupUnusable(
                f"the backup {folder} is damaged: {', '.join(wrong[:5])}{more}. Nothing was changed"
            )

    def _faults(self, folder: Path) -> Iterator[tuple[str, str]]:
        for path, content in self.files.items():
            try:
                found = content_of(folder / path)
            except OSError as error:
                yield path, error.strerror or "cannot be read"
                continue
            if found.size_bytes != content.size_bytes:
                yield path, f"{found.size_bytes} bytes, not {content.size_bytes}"
            elif found != content:
                yield path, "changed"


def content_of(path: Path) -> Content:
    """Return a file's digest and size."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Content(digest, file.tell())


def copied(source: Path, target: Path) -> Content:
    """Copy a file, and return what was copied; its name and bytes are not synced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as read, target.open("wb") as written:
        while chunk := read.read(_CHUNK):
            digest.update(chunk)
            written.write(chunk)
            size += len(chunk)
    return Content(digest.hexdigest(), size)


def _inside(path: str) -> str:
    """Return a path of a manifest, which may not lead out of the backup."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or path == NAME:
        raise ValueError(f"{path!r} is no path in a backup")
    return path
