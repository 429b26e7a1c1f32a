"""Where a store's mark and what records name are: all in a folder, or adapters' bytes in a bucket.

A bucket's store has a folder too, for training files and the folders of jobs and batches. It has a
copy of the mark there, so that a folder with another store's files is not taken for its own.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from registry.adapters.bucket_blobs import BucketBlobs
from registry.errors import ForeignStore
from registry.objects.bucket import Bucket
from registry.store import mark
from registry.store.mark import StoreMark


class FolderPlace:
    """A store in a folder.

    Args:
        folder: made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def check(self) -> None:
        """Make sure that the place answers: a folder does."""

    def mark(self) -> StoreMark | None:
        """Return the store's mark, or None if it has none.

        Raises:
            CorruptRecord: it is not what this program writes.
        """
        return StoreMark.read(self.folder)

    def begin(self, own: StoreMark) -> StoreMark:
        """Make this the mark of a store that has none; the caller holds the folder's lock."""
        self.write(own)
        return own

    def write(self, own: StoreMark) -> None:
        """Replace the mark; it is durable afterwards.

        Raises:
            OSError: the folder cannot be written.
        """
        own.write(self.folder)

    def note(self, own: StoreMark) -> None:
        """Note that the store has been opened: a folder's mark is there already."""

    def content(self) -> Iterator[object]:
        """Return what the store holds that a registry could name."""
        yield from self.folder.glob("[0-9a-f][0-9a-f]/" + "[0-9a-f]" * 64)
        yield from _besides_blobs(self.folder)

    def num_missing(self, digests: Sequence[str], files: Sequence[str]) -> int:
        """Return how many of these blobs and files are not there."""
        blobs = [each.partition(":")[2] for each in digests]
        paths = [self.folder / each[:2] / each for each in blobs]
        return sum(not path.exists() for path in paths) + _num_missing(self.folder, files)


class BucketPlace:
    """A store with its adapters' bytes in a bucket.

    Args:
        bucket: of the store.
        blobs: in it.
        folder: of this machine, or shared by several.
    """

    def __init__(self, bucket: Bucket, blobs: BucketBlobs, folder: Path) -> None:
        self.folder = folder
        self._bucket, self._blobs = bucket, blobs

    def check(self) -> None:
        """Make sure that the bucket is there and answers.

        Raises:
            RegistryUnusable: it does not.
        """
        self._bucket.check()

    def mark(self) -> StoreMark | None:
        """Return the store's mark, or None if it has none.

        Raises:
            ForeignStore: the folder has files of another store.
            CorruptRecord: a mark is not what this program writes.
            StoreUnavailable: S3 does not answer.
        """
        body = self._bucket.get(mark.NAME)
        own = None if body is None else StoreMark.parse(body)
        local = StoreMark.read(self.folder)
        if own is not None and local is not None and own.store != local.store:
            raise ForeignStore(
                f"the folder {self.folder} has files of another store than {self._bucket.name}: "
                "name another data folder (OVERTONE_DATA). Nothing was changed"
            )
        return own

    def begin(self, own: StoreMark) -> StoreMark:
        """Make this the mark of a store that has none; return the one of whichever was first."""
        if self._bucket.create(mark.NAME, own.body()):
            return own
        return self.mark() or own

    def write(self, own: StoreMark) -> None:
        """Replace the mark; it is durable afterwards.

        Raises:
            StoreUnavailable: S3 does not answer.
            OSError: the folder cannot be written.
        """
        self._bucket.put(mark.NAME, own.body())
        own.write(self.folder)

    def note(self, own: StoreMark) -> None:
        """Note that the store has been opened with this folder."""
        if StoreMark.read(self.folder) != own:
            own.write(self.folder)

    def content(self) -> Iterator[object]:
        """Return what the store holds that a registry could name."""
        yield from self._blobs.all()
        yield from _besides_blobs(self.folder)

    def num_missing(self, digests: Sequence[str], files: Sequence[str]) -> int:
        """Return how many of these blobs and files are not there."""
        there = {digest for digest, _ in self._blobs.all()}
        return len({*digests} - there) + _num_missing(self.folder, files)


#: Where a store is.
StorePlace = FolderPlace | BucketPlace


def is_empty(place: StorePlace) -> bool:
    """Return whether a store holds nothing that a registry could name."""
    return not any(True for _ in islice(place.content(), 1))


def _besides_blobs(folder: Path) -> Iterator[Path]:
    patterns = ("files/file-*", "jobs/ftjob-*", "batches/batch_*")
    return chain.from_iterable(folder.glob(pattern) for pattern in patterns)


def _num_missing(folder: Path, files: Sequence[str]) -> int:
    return sum(not (folder / "files" / each).exists() for each in files)
