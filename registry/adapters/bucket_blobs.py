"""The adapters' bytes in a bucket of S3, with copies on this machine.

    <prefix>/<aa>/<hex>/adapter_config.json, adapter_model.safetensors

The keys are the paths of a store in a folder (blobs.py), so that one can be copied to the other. A
blob is there when its file is, which is put last and deleted first.

S3 has no locks. Where a folder's lock keeps a blob from being removed between its bytes and its
record, here both sides look again afterwards: a publication looks for the bytes once the record is
written, and puts them once more if they are gone; a removal asks for a record once the bytes are
gone, and puts them back if there is one. In every order of these four steps one of the two sees the
other's.
"""

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from registry.adapters.blob_cache import BlobCache
from registry.adapters.blobs import CONFIG, FILE, BlobPaths, BlobStore
from registry.common.names import check_digest
from registry.errors import BlobDamaged, BlobMissing
from registry.objects.bucket import Bucket, Found


class BucketBlobs:
    """Adapters' files by digest, in a bucket; safe to use from many threads and machines.

    Args:
        bucket: of the store.
        cache: this machine's copies.
    """

    def __init__(self, bucket: Bucket, cache: BlobCache) -> None:
        self._bucket, self._cache = bucket, cache

    def put(self, digest: str, file: Path, config: bytes) -> None:
        """Copy a file and its config in; they are durable afterwards. Twice is harmless.

        They are put again even if they are there: so damaged ones are replaced, and no collection
        takes them for old.

        Raises:
            InvalidName: the digest breaks its rule.
            StoreUnavailable: S3 does not answer.
            OSError: the cache's disk is full or cannot be written.
        """
        place = _place(digest)
        self._cache.put(digest, file, config)
        self._bucket.put(place + CONFIG, config)
        self._bucket.put(place + FILE, file.read_bytes())

    def open_whole(self, digest: str) -> BlobPaths:
        """Return where this machine's copy is, after it was held against its digest.

        A copy that is missing or damaged is fetched.

        Raises:
            BlobMissing: the bucket does not have it.
            BlobDamaged: what the bucket has is not what it was made from.
            InvalidName: the digest breaks its rule.
            StoreUnavailable: S3 does not answer, and there is no copy here.
        """
        try:
            return self._cache.open_whole(digest)
        except (BlobMissing, BlobDamaged):
            return self._fetched(digest)

    def open(self, digest: str) -> BlobPaths:
        """Return the same as `open_whole`."""
        return self.open_whole(digest)

    @contextmanager
    def hold(self, digest: str) -> Iterator[None]:
        """Have the blob there when the block, which writes its record, is over."""
        place = _place(digest)
        yield
        if self._bucket.head(place + FILE) is None:
            kept = self._cache.open_whole(digest)
            self.put(digest, kept.file, kept.config.read_bytes())

    def remove(
        self, digest: str, is_live: Callable[[str], bool], older_than: float = math.inf
    ) -> bool:
        """Remove a blob that no record needs, and tell whether it was there and is gone.

        Args:
            digest: which.
            is_live: called before it is removed and afterwards.
            older_than: not if it was written, or published once more, after this second.
        """
        place = _place(digest)
        found = self._bucket.head(place + FILE)
        if found is None or found.changed_at > older_than or is_live(digest):
            return False
        config, file = self._read(place)
        self._bucket.delete(place + FILE)
        self._bucket.delete(place + CONFIG)
        if is_live(digest):
            self._bucket.put(place + CONFIG, config)
            self._bucket.put(place + FILE, file)
            return False
        self._cache.remove(digest)
        return True

    def all(self) -> Iterator[tuple[str, Found]]:
        """Return every blob that is there: its digest and its file."""
        for found in self._bucket.list(""):
            digest = _digest_in(found.key, FILE)
            if digest is not None:
                yield digest, found

    def unfinished(self) -> Iterator[Found]:
        """Return the configs without a file: being put, or left when a process died."""
        waiting: dict[str, Found] = {}
        for found in self._bucket.list(""):  # the config of a blob comes before its file
            digest = _digest_in(found.key, CONFIG)
            if digest is not None:
                waiting[digest] = found
            waiting.pop(_digest_in(found.key, FILE) or "", None)
        yield from waiting.values()

    def discard(self, found: Found) -> None:
        """Delete what `unfinished` gave, unless its blob is whole meanwhile."""
        digest = _digest_in(found.key, CONFIG)
        if digest is not None and self._bucket.head(_place(digest) + FILE) is None:
            self._bucket.delete(found.key)

    def free_bytes(self) -> int:
        """Return how much more the cache's disk takes."""
        return self._cache.free_bytes()

    def _fetched(self, digest: str) -> BlobPaths:
        config, file = self._read(_place(digest))
        if not file:
            raise BlobMissing(f"the store has no file for {digest}; publish the adapter again")
        with tempfile.NamedTemporaryFile() as fetched:
            fetched.write(file)
            fetched.flush()
            self._cache.put(digest, Path(fetched.name), config)
        try:
            return self._cache.open_whole(digest)
        except BlobDamaged:
            raise BlobDamaged(
                f"the store's file of {digest} is damaged and is not used; upload the adapter "
                "again, or restore the bucket's object"
            ) from None

    def _read(self, place: str) -> tuple[bytes, bytes]:
        """Return the config and the file; nothing of what is not there."""
        return self._bucket.get(place + CONFIG) or b"", self._bucket.get(place + FILE) or b""


#: Where a registry's adapters' bytes are.
Blobs = BlobStore | BucketBlobs


def _place(digest: str) -> str:
    hexadecimal = check_digest(digest).removeprefix("sha256:")
    return f"{hexadecimal[:2]}/{hexadecimal}/"


def _digest_in(key: str, name: str) -> str | None:
    """Return the digest of a blob's file or config by its key; None of any other key."""
    parts = key.split("/")
    if len(parts) != 3 or parts[2] != name or not parts[1].startswith(parts[0]):
        return None
    is_digest = len(parts[0]) == 2 and len(parts[1]) == 64 and not set(parts[1]) - set(_HEX)
    return f"sha256:{parts[1]}" if is_digest else None


_HEX = "0123456789abcdef"
