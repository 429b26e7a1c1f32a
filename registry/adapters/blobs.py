"""The adapters' bytes: one folder a digest, written whole or not at all.

    <folder>/<aa>/<hex>/adapter_model.safetensors, adapter_config.json
    <folder>/<aa>/.lock      held shared while a blob gets its record, alone while one is removed
    <folder>/.tmp/<random>   being written or being removed
    <folder>/.damaged        blobs that did not have their digest when they were uploaded again

A blob that can be seen is complete and on the disk: it is synced in `.tmp` and then renamed. It
never changes, so readers need no lock. Several processes, and machines over a file system with
working `flock`, may share the folder; it belongs to one registry, which alone knows what is used.
"""

import errno
import fcntl
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters_core.contract.digest import digest_of
from adapters_core.contract.peft_config import PeftConfig
from adapters_core.errors import AdapterError
from registry.common.names import check_digest
from registry.common.whole_files import sync, write_synced
from registry.errors import BlobDamaged, BlobMissing

log = logging.getLogger(__name__)

FILE = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class BlobPaths:
    """Where one blob's two files are."""

    file: Path
    config: Path


class BlobStore:
    """Adapters' files by digest, in a folder that is made when first written to.

    Args:
        folder: on one file system, to which `flock` applies.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._temporary = folder / ".tmp"
        self._damaged = folder / ".damaged"

    def put(self, digest: str, file: Path, config: bytes) -> None:
        """Copy a file and its config in; they are on the disk afterwards. Twice is harmless.

        What is there already stays, unless it was damaged.

        Raises:
            InvalidName: the digest breaks its rule.
            OSError: the disk is full or cannot be written.
        """
        place = self._place(digest)
        if self._is_whole(digest):
            os.utime(place)  # it is about to be named again: what is old may be removed
            return
        if place.is_dir():
            self._set_aside(place)
        making = self._new_temporary()
        try:
            write_synced(making / FILE, file.read_bytes())
            write_synced(making / CONFIG, config)
            sync(making)
            _move(making, place)
        finally:
            shutil.rmtree(making, ignore_errors=True)

    def open_whole(self, digest: str) -> BlobPaths:
        """Return where the files are, after they were held against their digest.

        Raises:
            BlobMissing: they are not there.
            BlobDamaged: one is not there, cut short or changed.
            InvalidName: the digest breaks its rule.
        """
        paths = self.open(digest)
        if not self._is_whole(digest):
            self.open(digest)  # deleted meanwhile: that is said then
            raise BlobDamaged(
                f"the stored file of {digest} is damaged and is not used; upload the adapter "
                "again, or restore the store's backup"
            )
        return paths

    def open(self, digest: str) -> BlobPaths:
        """Return where the files are.

        Raises:
            BlobMissing: they are not there.
            InvalidName: the digest breaks its rule.
        """
        place = self._place(digest)
        if not place.is_dir():
            raise BlobMissing(f"the store has no file for {digest}; publish the adapter again")
        return BlobPaths(place / FILE, place / CONFIG)

    @contextmanager
    def hold(self, digest: str) -> Iterator[None]:
        """Keep this digest from being removed, by any process, until its record is written."""
        with self._locked(digest, fcntl.LOCK_SH):
            yield

    def remove(
        self, digest: str, is_live: Callable[[str], bool], older_than: float = math.inf
    ) -> bool:
        """Remove a blob that no record needs, and tell whether it was there and is gone.

        Args:
            digest: which.
            is_live: called while no process is between writing the blob and its record.
            older_than: not if it was written, or published once more, after this second.
        """
        place = self._place(digest)
        with self._locked(digest, fcntl.LOCK_EX):
            if not place.is_dir() or place.stat().st_mtime > older_than or is_live(digest):
                return False
            leaving = self._new_temporary()
            os.rename(place, leaving / place.name)
        shutil.rmtree(leaving, ignore_errors=True)
        return True

    def all(self) -> Iterator[tuple[str, Path]]:
        """Return every blob that is there: its digest and its folder."""
        for place in self._folder.glob("[0-9a-f][0-9a-f]/" + "[0-9a-f]" * 64):
            yield f"sha256:{place.name}", place

    def unfinished(self) -> Iterator[Path]:
        """Return the folders that are being written, or were when a process died."""
        yield from self._temporary.glob("*")

    def free_bytes(self) -> int:
        """Return how much more the store's disk takes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self._folder).free

    def _is_whole(self, digest: str) -> bool:
        place = self._place(digest)
        try:
            config = PeftConfig.parse((place / CONFIG).read_bytes())
            return digest_of(place / FILE, config.canonical()) == digest
        except (AdapterError, FileNotFoundError):
            return False

    def _set_aside(self, place: Path) -> None:
        """Move a damaged blob out of its place, whichever process does."""
        self._damaged.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f"{place.name[:16]}-", dir=self._damaged))
        try:
            os.rename(place, aside / place.name)
        except FileNotFoundError:  # another process was first
            aside.rmdir()
            return
        log.warning("the damaged blob %s is replaced by an upload of the same adapter", place.name)

    def _place(self, digest: str) -> Path:
        hexadecimal = check_digest(digest).removeprefix("sha256:")
        return self._folder / hexadecimal[:2] / hexadecimal

    def _new_temporary(self) -> Path:
        self._temporary.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=self._temporary))

    @contextmanager
    def _locked(self, digest: str, kind: int) -> Iterator[None]:
        shard = self._place(digest).parent
        if not shard.is_dir():
            shard.mkdir(parents=True, exist_ok=True)
            sync(self._folder)
        with (shard / ".lock").open("ab") as lock:
            fcntl.flock(lock, kind)
            yield


def _move(making: Path, place: Path) -> None:
    """Rename a finished folder into its place, unless another process was first."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(making, place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    sync(place.parent)
    sync(place.parent.parent)
