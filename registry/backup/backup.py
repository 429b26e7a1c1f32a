"""A registry and its store in one folder, while servers and workers run.

    DEST/manifest.json     what there is, with digests (manifest.py)
    DEST/registry.jsonl    the registry's keys as they were at one moment (redis/snapshot.py)
    DEST/store/…           what they name, in the places that it has in a store

The keys are read first and at one moment: all that was acknowledged by then is among them. What
they name never changes, so it is copied afterwards; where something was deleted in between, the
keys are read again. What no key names (uploads that are under way, caches) is not in a backup.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from adapters_core.part_files import part_of
from registry.adapters.blobs import BlobStore
from registry.backup.manifest import Content, Manifest, content_of, copied
from registry.common.whole_files import sync
from registry.connect import Registry
from registry.errors import BackupUnusable, BlobDamaged, BlobMissing, FileNotFound
from registry.files import FileRecord
from registry.redis import keys
from registry.redis.snapshot import Snapshot
from registry.store import mark, schema

RECORDS, STORE = "registry.jsonl", "store"
#: The registry is read so often before what is not found counts as missing.
_TRIES = 5


def back_up(opened: Registry, destination: Path, program: str, now: float) -> Manifest:
    """Write a backup, whole or not at all; it is on the disk afterwards.

    Args:
        opened: a registry whose store is its own and open.
        destination: a folder that does not exist or is empty.
        program: this program's version.
        now: seconds since 1970.

    Raises:
        BackupUnusable: the destination holds something, or is in the store.
        RegistryUnavailable: the registry does not answer.
        OSError: the destination cannot be written.
    """
    making = _begin(opened, destination)
    try:
        manifest = _copy(opened, making, program, now)
        os.sync()
        manifest.write(making)
        os.replace(making, destination)
        sync(destination.parent)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return manifest


def _begin(opened: Registry, destination: Path) -> Path:
    """Return a new folder beside the destination."""
    if destination.is_dir() and not any(destination.iterdir()):
        destination.rmdir()
    if destination.exists():
        raise BackupUnusable(f"{destination} exists already: name a folder that does not")
    if destination.resolve().is_relative_to(opened.store.resolve()):
        raise BackupUnusable(f"{destination} is in the store itself: name a folder outside")
    making = part_of(destination)
    making.parent.mkdir(parents=True, exist_ok=True)
    making.mkdir(mode=0o700)  # API keys are in it, hashed, and what tenants uploaded
    return making


def _copy(opened: Registry, making: Path, program: str, now: float) -> Manifest:
    copying = _Copying(opened, making / STORE)
    for _ in range(_TRIES):
        with opened.patient() as client:
            snapshot = Snapshot.take(client)
        missing = copying.copy(snapshot)
        if not missing:
            break
    snapshot.write(making / RECORDS)
    own = opened.store / mark.NAME
    files = copying.files | {mark.NAME: copied(own, making / STORE / mark.NAME)}
    contents = {f"{STORE}/{path}": content for path, content in files.items()}
    contents[RECORDS] = content_of(making / RECORDS)
    identity = snapshot.hash(keys.IDENTITY)
    return Manifest(
        program=program,
        schema=schema.of(identity),
        taken_at=now,
        registry=identity.get("id", b"").decode(),
        store=identity.get("store", b"").decode(),
        files=contents,
        missing=tuple(missing),
    )


class _Copying:
    """Copies what snapshots name.

    Args:
        opened: from whose store.
        target: a folder that becomes like a store.
    """

    def __init__(self, opened: Registry, target: Path) -> None:
        self._opened, self._target = opened, target
        self._blobs = BlobStore(target)
        self._files: dict[str, dict[str, Content]] = {}  # by what names them

    @property
    def files(self) -> dict[str, Content]:
        """Return all that is copied, by its path below the store."""
        return {path: content for files in self._files.values() for path, content in files.items()}

    def copy(self, snapshot: Snapshot) -> list[str]:
        """Copy what is not copied yet; return what is not there, or not whole."""
        for id_ in snapshot.members(keys.JOBS):
            self._folder(id_, self._opened.store / "jobs" / id_)
        for id_ in snapshot.members(keys.BATCHES):
            self._folder(id_, self._opened.store / "batches" / id_)
        files = snapshot.hash(keys.FILES).items()
        records = [FileRecord.read(id_, stored) for id_, stored in files]
        return [
            *(digest for digest in snapshot.hash(keys.DIGESTS) if not self._blob(digest)),
            *(record.id for record in records if not self._file(record)),
        ]

    def _blob(self, digest: str) -> bool:
        """Copy an adapter's files unless that is done; return whether the copy is whole."""
        if digest not in self._files:
            try:
                paths = self._opened.blobs.open(digest)
                found = self._taken([paths.file, paths.config], paths.file.parents[2])
                self._blobs.open_whole(digest)
            except (FileNotFoundError, BlobMissing, BlobDamaged):
                return False
            self._files[digest] = found
        return True

    def _file(self, record: FileRecord) -> bool:
        if record.id not in self._files:
            try:
                found = self._taken([self._opened.files.open(record.id)], self._opened.store)
            except (FileNotFoundError, FileNotFound):
                return False
            if record.digest not in {f"sha256:{content.sha256}" for content in found.values()}:
                return False
            self._files[record.id] = found
        return True

    def _folder(self, id_: str, folder: Path) -> None:
        """Copy the folder of a job or batch, which may be renamed or removed meanwhile."""
        for _ in range(_TRIES):
            shutil.rmtree(self._target / folder.parent.name / id_, ignore_errors=True)
            try:
                self._files[id_] = self._taken(_whole_files(folder), self._opened.store)
            except FileNotFoundError:
                continue
            return

    def _taken(self, paths: Iterable[Path], below: Path) -> dict[str, Content]:
        """Copy files to their places in a store, which they have below a folder here."""
        inside = [str(path.relative_to(below)) for path in paths]
        return {path: copied(below / path, self._target / path) for path in inside}


def _whole_files(folder: Path) -> Iterator[Path]:
    """Return a folder's files without those that are being written under another name."""
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            yield path
