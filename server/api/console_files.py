"""The console's files as they are sent: known by name, compressed once, with an ETag each."""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "console"
#: The page's own path; its parts lie below `/console/`.
PAGE = "index.html"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
#: What is smaller is sent as it is: it fits one packet anyway.
_COMPRESSED_FROM = 1024


@dataclass(frozen=True)
class ConsoleFile:
    """One file.

    Args:
        body: its bytes.
        packed: the same, compressed by gzip; None where that saves nothing.
        etag: of these bytes.
        media_type: with its charset.
    """

    body: bytes
    packed: bytes | None
    etag: str
    media_type: str


@cache
def console_names() -> frozenset[str]:
    """Return the names of all files that are sent, as `pages/live.js`; nothing else is opened."""
    found = (path for path in FOLDER.rglob("*") if path.suffix in _TYPES)
    return frozenset(path.relative_to(FOLDER).as_posix() for path in found)


@cache
def console_file(name: str) -> ConsoleFile:
    """Return a file; `name` is one of `console_names()`."""
    body = (FOLDER / name).read_bytes()
    packed = gzip.compress(body, 9, mtime=0) if len(body) >= _COMPRESSED_FROM else None
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return ConsoleFile(body, packed, etag, _TYPES[Path(name).suffix])
