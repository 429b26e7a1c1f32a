"""An adapter as a multipart request: found, hashed, streamed, reported."""

import base64
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from ._requests import Call
from .errors import InvalidArgument

COEFFICIENTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"

Source: TypeAlias = str | PathLike[str]
Config: TypeAlias = Source | Mapping[str, Any]
Progress: TypeAlias = Callable[[int, int], None]


class ReportedBytes(io.BytesIO):
    """Bytes in memory that report as `ReportedFile` does."""

    def __init__(self, data: bytes, on_progress: Progress | None) -> None:
        super().__init__(data)
        self._total_bytes, self._on_progress = len(data), on_progress

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = super().read(size)
        if self._on_progress:
            self._on_progress(self.tell(), self._total_bytes)
        return chunk


class ReportedFile(io.FileIO):
    """A file that tells `on_progress(done_bytes, total_bytes)` after each read while it is sent."""

    def __init__(self, path: Path, on_progress: Progress | None) -> None:
        super().__init__(path)
        self.total_bytes = path.stat().st_size
        self._on_progress = on_progress

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = super().read(-1 if size is None else size)
        if self._on_progress:
            self._on_progress(self.tell(), self.total_bytes)
        return chunk


@contextmanager
def opened(
    source: Source,
    fields: Mapping[str, str],
    config: Config | None,
    on_progress: Progress | None,
) -> Iterator[Call]:
    """The request that uploads `source`; it may be sent again as long as the block lasts.

    The file is read for its `Content-Digest`, which stands among the headers of the file's own
    part, and each time the request is sent. It is never wholly in memory.

    Raises:
        InvalidArgument: there is no coefficient file or no config, or it cannot be read; or the
            config is not JSON.
    """
    coefficients, config_bytes = _found(Path(source), config)
    with readable(coefficients), ReportedFile(coefficients, on_progress) as file:
        with coefficients.open("rb") as read:
            digest = hashlib.file_digest(read, "sha256").digest()
        yield _call(file, digest, config_bytes, fields)


def from_bytes(
    data: bytes,
    config: Mapping[str, Any],
    fields: Mapping[str, str],
    on_progress: Progress | None,
) -> Call:
    """The request that uploads a coefficient file that is in memory.

    Raises:
        InvalidArgument: the config is not JSON.
    """
    digest, config_bytes = hashlib.sha256(data).digest(), _json(config, "config").encode()
    return _call(ReportedBytes(data, on_progress), digest, config_bytes, fields)


def _call(file: BinaryIO, digest: bytes, config: bytes, fields: Mapping[str, str]) -> Call:
    """The request; the digest is RFC 9530's, of the file's bytes."""
    headers = {"Content-Digest": f"sha-256=:{base64.b64encode(digest).decode()}:"}
    files = [
        ("config", (CONFIG, config, "application/json")),
        ("file", (COEFFICIENTS, file, "application/octet-stream", headers)),
    ]
    return Call("POST", "/v1/adapters", data=fields, files=files)


def upload_fields(
    name: str, alias: str | None, metadata: Mapping[str, Any] | None, shared: bool | None
) -> Mapping[str, str]:
    """What is sent beside the two files.

    Raises:
        InvalidArgument: there is no name, or the metadata are not JSON.
    """
    if not name:
        raise InvalidArgument("an adapter needs a name")
    fields = {
        "name": name,
        "alias": alias,
        "metadata": metadata and _json(metadata, "metadata"),
        "shared": None if shared is None else json.dumps(shared),
    }
    return {field: value for field, value in fields.items() if value}


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Let the system's errors leave the block as InvalidArgument, which names the file."""
    try:
        yield
    except OSError as error:
        raise InvalidArgument(f"cannot read {path}: {error.strerror}") from error


def _found(source: Path, config: Config | None) -> tuple[Path, bytes]:
    """The coefficient file, and the config's bytes; a PEFT directory holds both."""
    coefficients = source / COEFFICIENTS if source.is_dir() else source
    if not coefficients.is_file():
        raise InvalidArgument(f"there is no file {coefficients}{_pickled(coefficients)}")
    if isinstance(config, Mapping):
        return coefficients, _json(config, "config").encode()
    path = coefficients.parent / CONFIG if config is None else Path(config)
    if not path.is_file():
        raise InvalidArgument(f"there is no config {path}")
    with readable(path):
        return coefficients, path.read_bytes()


def _json(value: Mapping[str, Any], what: str) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"the {what} cannot be written as JSON: {error}") from error


def _pickled(coefficients: Path) -> str:
    """What to say where PEFT's older format lies instead."""
    if not coefficients.with_name("adapter_model.bin").exists():
        return ""
    return "; adapter_model.bin is a pickle, which is never read: save it again as safetensors"
