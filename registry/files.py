"""Uploaded files and files of results: their bytes in a folder, their records in Redis.

    <folder>/<id>            complete and on the disk before its record is written; never changes
    <folder>/.tmp/<random>   being written
    <folder>/.lock           held shared while a file gets its record, alone while one is removed

As with adapters, a record that can be read has bytes that can be read. A file that an unfinished
job or batch reads cannot be deleted.
"""

import copy
import fcntl
import hashlib
import json
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import redis

from registry.common.limits import UNLIMITED, Limits
from registry.common.pages import MAX_PAGE, check_limit
from registry.common.whole_files import sync
from registry.errors import (
    CorruptRecord,
    FileNotFound,
    InvalidArgument,
    JobConflict,
    RegistryError,
    RegistryUnavailable,
)
from registry.redis import keys
from registry.redis.hashes import page as page_of
from registry.redis.scripts import Observer, Scripts

FILE_ID = re.compile(r"file-[0-9a-f]{24}")
MAX_NAME_CHARS = 255
MAX_FACTS_BYTES = 64 * 1024
_CHUNK = 1 << 20

Records = list["FileRecord"]  # `list` is a method's name inside the class


@dataclass(frozen=True)
class FileRecord:
    """One uploaded file.

    Args:
        id: `file-` and 24 hex digits.
        filename: as the uploader calls it; never a path here.
        purpose: `fine-tune`, `batch` or `batch_output`.
        size_bytes: of its content.
        digest: `sha256:` and 64 hex digits, of its content.
        created_at: seconds since 1970.
        created_by: the tenant.
        facts: what its check found, a JSON object.
    """

    id: str
    filename: str
    purpose: str
    size_bytes: int
    digest: str
    created_at: float
    created_by: str
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, id_: str, stored: bytes) -> Self:
        """Read a stored record; fields that a later program added are ignored.

        Raises:
            CorruptRecord: it is not what this program writes.
        """
        try:
            given = json.loads(stored)
            known = {name: given[name] for name in cls.__dataclass_fields__ if name != "id"}
            return cls(id=id_, **known)
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptRecord(f"{keys.FILES} field {id_} is not a file's record") from error

    def body(self) -> str:
        """Return the record as it is stored.

        Raises:
            InvalidArgument: its facts are no JSON, or too large.
        """
        try:
            body = json.dumps(asdict(self), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidArgument(
                "a file's facts must be a JSON object of finite numbers"
            ) from error
        if len(body) > MAX_FACTS_BYTES:
            raise InvalidArgument(f"a file's facts are over {MAX_FACTS_BYTES} bytes as JSON")
        return body


class Files:
    """The uploaded files; safe to use from many threads and processes.

    Args:
        client: answers bytes and has socket timeouts.
        folder: of the bytes; made when first written to.
        observer: called after every exchange.
    """

    def __init__(self, client: redis.Redis, folder: Path, observer: Observer | None = None) -> None:
        self._client = client
        self._scripts = Scripts(client, observer)
        self._folder = folder
        self._temporary = folder / ".tmp"
        self._limits = UNLIMITED

    def within(self, limits: Limits) -> "Files":
        """Return the same files, to which no more can be added than a tenant's limits allow."""
        limited = copy.copy(self)
        limited._limits = limits
        return limited

    def begin(self) -> Path:
        """Return a new empty file to write an upload to; `put` it, or unlink it."""
        self._temporary.mkdir(parents=True, exist_ok=True)
        descriptor, path = tempfile.mkstemp(dir=self._temporary)
        os.close(descriptor)
        return Path(path)

    def put(
        self,
        path: Path,
        *,
        filename: str,
        purpose: str,
        created_by: str,
        facts: dict[str, Any],
        now: float,
    ) -> FileRecord:
        """Make what `begin` gave a file of its own, and return its record.

        Raises:
            InvalidArgument: the name, purpose or facts cannot be stored.
            QuotaExceeded: the tenant would have more than it may (`within`).
            RegistryUnavailable: the record may or may not be written, so the bytes stay.
            OSError: the disk is full or cannot be written.
        """
        words = {"filename": filename, "purpose": purpose, "created_by": created_by}
        with self.placed(path, facts=facts, now=now, **words) as record:
            touched = [keys.FILES, keys.FILES_IN_ORDER, keys.FILE_USERS + record.id]
            args = ["put", record.id, keys.FILES_OF, created_by, repr(now), record.body()]
            args += [str(record.size_bytes), *self._limits.words("files", "file_bytes")]
            state, *full = self._scripts.run("file_put", touched, args)
            if state == b"full":
                name, used = full[0].decode(), int(full[1])
                raise self._limits.exceeded(name, used, 1 if name == "files" else record.size_bytes)
        return record

    @contextmanager
    def placed(
        self,
        path: Path,
        *,
        filename: str,
        purpose: str,
        created_by: str,
        facts: dict[str, Any],
        now: float,
    ) -> Iterator[FileRecord]:
        """Put the bytes of what `begin` gave to their place; the block writes the record.

        Where the registry refuses that record, the bytes go again.

        Raises:
            InvalidArgument: the name, purpose or facts cannot be stored.
            OSError: the disk is full or cannot be written.
        """
        _check_words(filename, purpose)
        id_ = f"file-{secrets.token_hex(12)}"
        facts_ = (filename, purpose, path.stat().st_size, _digest_of(path), now, created_by, facts)
        record = FileRecord(id_, *facts_)
        record.body()  # what cannot be stored has no place
        sync(path)
        place = self._folder / id_
        with self._locked(fcntl.LOCK_SH):
            os.replace(path, place)
            sync(self._folder)
            try:
                yield record
            except RegistryUnavailable:
                raise  # the record may be written nevertheless
            except RegistryError:
                place.unlink(missing_ok=True)
                raise

    def get(self, id_: str) -> FileRecord:
        """Return a file's record.

        Raises:
            FileNotFound: there is none.
        """
        with self._scripts.asking("file"):
            stored: Any = self._client.hget(keys.FILES, check_file_id(id_))
        if stored is None:
            raise FileNotFound(f"no file {id_!r}")
        return FileRecord.read(id_, stored)

    def open(self, id_: str) -> Path:
        """Return where a file's bytes are.

        Raises:
            FileNotFound: they are not there: never uploaded, deleted, or in another store.
        """
        path = self._folder / check_file_id(id_)
        if not path.is_file():
            raise FileNotFound(f"the store has no file {id_!r}; upload it again")
        return path

    def list(
        self,
        limit: int,
        after: str | None = None,
        created_by: str | None = None,
        purpose: str | None = None,
    ) -> Records:
        """Return up to `limit` files, the newest first; as `Jobs.list`.

        Args:
            limit: 1 to `MAX_PAGE`. Fewer than this means that there are no more.
            after: the last file of the page before.
            created_by: only this tenant's files.
            purpose: only files of it.

        Raises:
            FileNotFound: `after` is no file of this list.
            InvalidArgument: the limit is out of range.
        """
        check_limit(limit)
        index = keys.FILES_IN_ORDER if created_by is None else keys.FILES_OF + created_by
        found: Records = []
        while len(found) < limit:
            page = self._page(index, limit if purpose is None else MAX_PAGE, after)
            found += [one for one in self._records(page) if purpose in (None, one.purpose)]
            if purpose is None or len(page) < MAX_PAGE:
                break
            after = page[-1]
        return found[:limit]

    def _page(self, index: str, limit: int, after: str | None) -> Sequence[str]:
        found = page_of(self._scripts, index, limit, check_file_id(after) if after else "")
        if found is None:
            raise FileNotFound(f"no file {after!r} to list what comes after")
        return [id_ for id_, _ in found]

    def delete(self, id_: str) -> None:
        """Delete a file: its record, then its bytes.

        Raises:
            FileNotFound: there is none.
            JobConflict: a job or batch that has not ended reads it.
        """
        record = self.get(id_)
        touched = [keys.FILES, keys.FILES_IN_ORDER, keys.FILE_USERS + id_]
        args = ["delete", id_, keys.FILES_OF, record.created_by]
        state, *users = self._scripts.run("file_put", touched, args)
        if state == b"missing":
            raise FileNotFound(f"no file {id_!r}")
        if state == b"in_use":
            jobs = ", ".join(sorted(user.decode() for user in users)[:3])
            raise JobConflict(f"file {id_!r} is read by {jobs}; cancel that first, or wait")
        with suppress(OSError):  # `overtone gc` removes it later
            (self._folder / id_).unlink(missing_ok=True)

    def all(self) -> Iterator[tuple[str, Path]]:
        """Return every file whose bytes are there: its id and its path."""
        for path in self._folder.glob("file-*"):
            yield path.name, path

    def unfinished(self) -> Iterator[Path]:
        """Return the uploads that are being written, or were when a process died."""
        yield from self._temporary.glob("*")

    def remove(self, id_: str, is_known: Callable[[str], bool], older_than: float) -> bool:
        """Remove bytes that no record names, and tell whether they were there and are gone.

        Args:
            id_: the file's.
            is_known: called while no upload is between writing its bytes and its record.
            older_than: not if they were written after this second.
        """
        path = self._folder / check_file_id(id_)
        with self._locked(fcntl.LOCK_EX):
            if not path.is_file() or path.stat().st_mtime > older_than or is_known(id_):
                return False
            path.unlink()
        return True

    @contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        with (self._folder / ".lock").open("ab") as lock:
            fcntl.flock(lock, kind)
            yield

    def _records(self, ids: Sequence[str]) -> Records:
        if not ids:
            return []
        with self._scripts.asking("files"):
            stored: Any = self._client.hmget(keys.FILES, list(ids))
        found = zip(ids, stored, strict=True)
        return [FileRecord.read(id_, body) for id_, body in found if body is not None]


def check_file_id(id_: str) -> str:
    """Return `id_` unchanged; it may be part of a path afterwards.

    Raises:
        FileNotFound: no file can have it.
    """
    if not FILE_ID.fullmatch(id_):
        raise FileNotFound(f"no file {ascii(id_[:60])}: an id is 'file-' and 24 hex digits")
    return id_


def _check_words(filename: str, purpose: str) -> None:
    for name, text in (("filename", filename), ("purpose", purpose)):
        if not 1 <= len(text) <= MAX_NAME_CHARS or not text.isprintable():
            raise InvalidArgument(
                f"{name} {ascii(text[:60])} is not 1 to {MAX_NAME_CHARS} printable characters"
            )


def _digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"
