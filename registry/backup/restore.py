"""A backup put back into a registry and a store that no program uses.

The bytes come first and the keys last, in one transaction: until then nothing of the backup is
visible, and what an interruption leaves is put right by restoring again.

    <store>/.restoring            the backup's files on the store's disk, before they are moved
    <store>/.replaced/<seconds>   what was there before, with its keys in registry.jsonl
"""

import os
import shutil
from pathlib import Path

import redis

from registry.adapters.blobs import CONFIG, FILE, BlobStore
from registry.adapters.bucket_blobs import BucketBlobs
from registry.backup.backup import RECORDS, STORE
from registry.backup.manifest import Manifest, copied
from registry.connect import Registry
from registry.errors import BackupUnusable, RegistryError
from registry.redis import keys
from registry.redis.snapshot import Snapshot
from registry.store import mark, schema


def restore(opened: Registry, source: Path, *, force: bool, now: float) -> Manifest:
    """Make a registry and its store what they were when the backup was made.

    Args:
        opened: any registry and store, which no program has open.
        source: the backup.
        force: what is there already is replaced; it is kept in the store's folder.
        now: seconds since 1970.

    Raises:
        BackupUnusable: the backup is damaged, or the registry or store holds something.
        SchemaTooNew: the backup is of a later version of the program.
        ForeignStore: programs have the store open.
        RegistryUnavailable: the registry does not answer.
        OSError: the store cannot be written.
    """
    manifest = Manifest.read(source)
    schema.check(manifest.schema)
    manifest.check(source)
    snapshot = Snapshot.read(source / RECORDS)
    with opened.ownership.unused(), opened.patient() as client:
        before = Snapshot.take(client)
        if not force:
            _check_empty(opened, before)
        staged = _staged(manifest, source, opened.store)
        _send(staged, opened)
        _set_aside(opened.store, before, now)
        _move_in(staged, opened.store)
        _put(snapshot, client)
    return manifest


def _check_empty(opened: Registry, before: Snapshot) -> None:
    """Refuse a registry or store with anything in it but what a first start leaves."""
    has_bytes = not opened.ownership.store_is_empty()
    if has_bytes or not before.is_without(*_OF_A_START):
        what = f"the store {opened.store}" if has_bytes else "the registry"
        raise BackupUnusable(
            f"{what} is not empty. Nothing was changed. Name an empty one; or, with --force, have "
            "it replaced: what is there is kept in the store's folder .replaced"
        )


def _staged(manifest: Manifest, source: Path, store: Path) -> Path:
    """Copy the backup's files to the store's disk, and hold the copies against their digests."""
    staged = store / ".restoring"
    shutil.rmtree(staged, ignore_errors=True)
    for path, content in manifest.files.items():
        place = Path(path)
        if place.parts[0] == STORE and copied(source / path, staged / place) != content:
            raise BackupUnusable(f"{path} changed while it was copied. Nothing was changed")
    os.sync()
    return staged / STORE


def _send(staged: Path, opened: Registry) -> None:
    """Put adapters' files into the store's bucket, if it has one; what is there already stays."""
    if not isinstance(opened.blobs, BucketBlobs):
        return
    for digest, place in BlobStore(staged).all():
        opened.blobs.put(digest, place / FILE, (place / CONFIG).read_bytes())
        shutil.rmtree(place)
    opened.ownership.restored((staged / mark.NAME).read_bytes())


def _set_aside(store: Path, before: Snapshot, now: float) -> None:
    """Move away what is in the store, with what its registry holds; nothing is removed."""
    held = _children(store)
    if not held and not before.commands:
        return
    aside = store / ".replaced" / str(int(now))
    aside.mkdir(parents=True)
    before.write(aside / RECORDS)
    for each in held:
        os.rename(each, aside / each.name)


def _move_in(staged: Path, store: Path) -> None:
    """Move the restored files to their places, the store's mark last."""
    for each in sorted(_children(staged), key=lambda path: path.name == mark.NAME):
        os.rename(each, store / each.name)
    shutil.rmtree(staged.parent, ignore_errors=True)
    os.sync()


def _put(snapshot: Snapshot, client: redis.Redis) -> None:
    try:
        snapshot.put(client)
    except RegistryError as error:
        error.message += (
            ". The store's files are in their places and nothing names them yet: restore again, "
            "with --force, once the registry takes writes"
        )
        raise BackupUnusable(error.message) from error


def _children(folder: Path) -> list[Path]:
    """Return what a store holds; locks and unfinished files begin with a dot and are nothing."""
    return [each for each in folder.glob("*") if not each.name.startswith(".")]


#: What a program leaves in a registry that nothing was ever put into.
_OF_A_START = (keys.IDENTITY, keys.WORKERS, keys.WORKERS_SEEN)
