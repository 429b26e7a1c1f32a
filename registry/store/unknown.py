"""Contents of a store that no record of its registry names: listed, removed only on request.

A crash between bytes and record leaves such files, and so does a registry that was restored from an
older backup: the bytes alone do not tell the two apart. So nothing is removed without a request,
and only what has been listed for a grace period.

    <store>/unknown.json   name -> when it was first found to be unknown, in seconds since 1970
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from registry.adapters.bucket_blobs import Blobs, BucketBlobs
from registry.batches.segments import BatchFolders
from registry.common.whole_files import write_whole
from registry.files import Files
from registry.jobs.folders import JobFolders
from registry.objects.bucket import Found
from registry.redis import keys
from registry.store.ownership import Ownership, Place

Kind = Literal["adapter", "training file", "job folder", "batch folder", "unfinished"]
NAME = "unknown.json"
#: What changed within this time is never removed: its record may follow.
MIN_AGE_S = 3600.0
#: What changed within this time is not listed: its record usually follows.
FRESH_S = 60.0
DEFAULT_GRACE_S = 7 * 86_400.0


@dataclass(frozen=True)
class Unknown:
    """Something in the store that no record names.

    Args:
        kind: what it is; `unfinished` was never whole.
        name: a digest, a file's, a job's or a batch's id, or the temporary's path below the store.
        place: where it is: a path, or an object of the store's bucket.
        size_bytes: of all its files.
        changed_at: when it was last written, in seconds since 1970.
        since: when it was first found to be unknown.
    """

    kind: Kind
    name: str
    place: Path | Found
    size_bytes: int
    changed_at: float
    since: float

    def is_due(self, grace_s: float, now: float) -> bool:
        """Return whether it has been listed for the grace, and is old enough to get no record."""
        return now - self.since >= grace_s and now - self.changed_at > MIN_AGE_S


class UnknownBytes:
    """Finds and removes what no record names.

    Args:
        folder: of the store, for notes.
        ownership: of it; a store of another registry is not looked at.
        blobs, files, job_folders, batch_folders: of the same store.
    """

    def __init__(
        self,
        folder: Path,
        ownership: Ownership,
        blobs: Blobs,
        files: Files,
        job_folders: JobFolders,
        batch_folders: BatchFolders,
    ) -> None:
        self._folder, self._ownership = folder, ownership
        self._blobs, self._files = blobs, files
        self._job_folders, self._batch_folders = job_folders, batch_folders

    def look(self, now: float) -> list[Unknown]:
        """Return all that is unknown, by kind and name, and note the time of new finds.

        Raises:
            ForeignStore: the registry that answers is not the store's own.
            RegistryUnavailable: it does not answer.
        """
        present = [each for each in self._present() if _is_older(each[2], now - FRESH_S)]
        are_known = self._ownership.are_known([place for *_, place in present])
        unknown = [each for each, known in zip(present, are_known, strict=True) if not known]
        names = [name for _, name, _, _ in unknown]
        unfinished = [place for place in self._unfinished() if _is_older(place, now - FRESH_S)]
        temporary = [(place, self._name_of(place)) for place in unfinished]
        since = self._noted([*names, *(name for _, name in temporary)], now)
        found = [_seen(kind, name, path, since[name]) for kind, name, path, _ in unknown]
        found += [_seen("unfinished", name, place, since[name]) for place, name in temporary]
        return sorted((each for each in found if each), key=lambda each: (each.kind, each.name))

    def remove(self, found: Sequence[Unknown], grace_s: float, now: float) -> list[Unknown]:
        """Remove what of `found` is due and still unknown; return what is gone.

        Each is asked for once more while nothing can be between its bytes and its record.

        Raises:
            ForeignStore: the registry is not the store's own, or programs of another have it open.
            RegistryUnavailable: the registry does not answer; what is gone is gone.
        """
        self._ownership.check_alone()
        return [each for each in found if each.is_due(grace_s, now) and self._remove(each, now)]

    def _remove(self, item: Unknown, now: float) -> bool:
        oldest = now - MIN_AGE_S
        if item.kind == "adapter":
            return self._blobs.remove(item.name, self._is_known(keys.DIGESTS), oldest)
        if item.kind == "training file":
            return self._files.remove(item.name, self._is_known(keys.FILES), oldest)
        record = _FOLDERS[item.kind](item.name) if item.kind in _FOLDERS else None
        if record is not None and self._ownership.are_known([record])[0]:
            return False
        self._discard(item.place)
        return True

    def _discard(self, place: Path | Found) -> None:
        if isinstance(place, Path):
            shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        elif isinstance(self._blobs, BucketBlobs):
            self._blobs.discard(place)

    def _name_of(self, place: Path | Found) -> str:
        return place.key if isinstance(place, Found) else str(place.relative_to(self._folder))

    def _is_known(self, hash_: str) -> Callable[[str], bool]:
        return lambda name: self._ownership.are_known([(hash_, name)])[0]

    def _present(self) -> Iterable[tuple[Kind, str, Path | Found, Place]]:
        for name, path in self._blobs.all():
            yield "adapter", name, path, (keys.DIGESTS, name)
        for name, path in self._files.all():
            yield "training file", name, path, (keys.FILES, name)
        for name, path in self._job_folders.all():
            yield "job folder", name, path, _job(name)
        for name, path in self._batch_folders.all():
            yield "batch folder", name, path, _batch(name)

    def _unfinished(self) -> Iterable[Path | Found]:
        yield from self._blobs.unfinished()
        yield from self._files.unfinished()

    def _noted(self, names: Sequence[str], now: float) -> dict[str, float]:
        """Return since when each is unknown, and keep that."""
        place = self._folder / NAME
        before = _notes(place)
        since = {name: min(before.get(name, now), now) for name in names}
        if since != before:
            with suppress(OSError):  # a full disk: it is noted the next time
                write_whole(place, json.dumps(since, indent=0, sort_keys=True).encode())
        return since


def _job(id_: str) -> Place:
    return keys.job(id_), "state"


def _batch(id_: str) -> Place:
    return keys.batch(id_), "state"


#: Kind of folder -> where its record is.
_FOLDERS: Mapping[Kind, Callable[[str], Place]] = {"job folder": _job, "batch folder": _batch}


def _notes(place: Path) -> dict[str, float]:
    """Return what was noted before; what cannot be read is noted anew, which removes less."""
    try:
        given = json.loads(place.read_text())
        return {str(name): float(since) for name, since in given.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _is_older(place: Path | Found, than: float) -> bool:
    try:
        return _changed_at(place) < than
    except FileNotFoundError:
        return False


def _changed_at(place: Path | Found) -> float:
    return place.changed_at if isinstance(place, Found) else place.stat().st_mtime


def _seen(kind: Kind, name: str, place: Path | Found, since: float) -> Unknown | None:
    """Return what lies at `place`; None if it is gone meanwhile."""
    try:
        return Unknown(kind, name, place, _size_of(place), _changed_at(place), since)
    except FileNotFoundError:
        return None


def _size_of(path: Path | Found) -> int:
    if isinstance(path, Found):
        return path.size_bytes
    if not path.is_dir():
        return path.stat().st_size
    size = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                size += (Path(folder) / name).lstat().st_size
    return size
