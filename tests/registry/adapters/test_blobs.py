"""A blob in a folder is there as a whole or not at all, whatever process dies or races.

What holds for a bucket, too, is in test_blobs_contract.py.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from adapters_core.contract.digest import digest_of
from registry.adapters.blobs import BlobStore
from registry.errors import BlobDamaged, BlobMissing

DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32


@pytest.fixture
def store(tmp_path):
    return BlobStore(tmp_path / "blobs")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "upload"
    path.write_bytes(b"coefficients")
    return path


def never(digest):
    return False


def always(digest):
    return True


def files_under(folder):
    return sorted(
        path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    )


def test_blob_comes_back_as_it_went_in(store, file, tmp_path):
    digest = digest_of(file, b"{}")
    store.put(digest, file, b"{}")
    store.put(digest, file, b"{}")

    paths = store.open_whole(digest)

    assert paths == store.open(digest)
    assert paths.file.read_bytes() == b"coefficients"
    assert paths.config.read_bytes() == b"{}"
    hexadecimal = digest.removeprefix("sha256:")
    place = tmp_path / "blobs" / hexadecimal[:2] / hexadecimal
    assert paths.file == place / "adapter_model.safetensors"
    assert file.exists()
    assert len(files_under(tmp_path / "blobs")) == 2


DAMAGES = {
    "cut short": lambda paths: paths.file.write_bytes(b"coeff"),
    "changed": lambda paths: paths.file.write_bytes(b"Coefficients"),
    "config changed": lambda paths: paths.config.write_bytes(b'{"r": 1}'),
    "config cut short": lambda paths: paths.config.write_bytes(b"{"),
    "half missing": lambda paths: paths.file.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_blob_is_not_opened_and_an_upload_makes_it_whole(store, file, tmp_path, damage):
    digest = digest_of(file, b"{}")
    store.put(digest, file, b"{}")
    damage(store.open(digest))

    with pytest.raises(BlobDamaged, match=digest) as caught:
        store.open_whole(digest)
    assert str(tmp_path) not in caught.value.message

    store.put(digest, file, b" {} ")  # another spelling of the same config
    assert store.open_whole(digest).file.read_bytes() == b"coefficients"
    assert len(list((tmp_path / "blobs" / ".damaged").glob("*/*"))) == 1


def test_failed_write_leaves_nothing(store, file, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.put(DIGEST, file, b"{}")

    assert files_under(tmp_path / "blobs") == []


CRASH_BEFORE_RENAME = """
import os, pathlib, sys
from adapters_core.contract.digest import digest_of
from registry.adapters.blobs import BlobStore
os.rename = lambda *paths: os._exit(9)
BlobStore(pathlib.Path(sys.argv[1])).put(sys.argv[2], pathlib.Path(sys.argv[3]), b"{}")
"""


def test_crash_between_write_and_rename_leaves_nothing_to_be_seen(store, file, tmp_path):
    folder = tmp_path / "blobs"
    crash = [sys.executable, "-c", CRASH_BEFORE_RENAME, str(folder), DIGEST, str(file)]
    assert subprocess.run(crash, check=False).returncode == 9
    assert len(files_under(folder)) == 2

    with pytest.raises(BlobMissing):
        store.open(DIGEST)
    assert len(list(store.unfinished())) == 1
    assert list(store.all()) == []
    store.put(DIGEST, file, b"{}")
    assert store.open(DIGEST).file.read_bytes() == b"coefficients"


def test_writer_that_loses_the_race_succeeds(store, file, monkeypatch):
    rename = os.rename

    def lose(making, place):
        monkeypatch.setattr(os, "rename", rename)
        store.put(DIGEST, file, b"{}")
        rename(making, place)

    monkeypatch.setattr(os, "rename", lose)
    store.put(DIGEST, file, b"{}")

    assert store.open(DIGEST).config.read_bytes() == b"{}"


def test_removal_waits_for_a_publisher_and_asks_afterwards(store, file):
    store.put(DIGEST, file, b"{}")
    live, asked = set(), []

    def is_live(digest):
        asked.append(digest)
        return digest in live

    with ThreadPoolExecutor(1) as pool:
        with store.hold(DIGEST):
            removal = pool.submit(store.remove, DIGEST, is_live)
            with store.hold(DIGEST):  # publishers do not wait for each other
                assert not asked
            live.add(DIGEST)
        assert removal.result(10) is False

    assert asked == [DIGEST]
    assert store.open(DIGEST)


def test_what_was_written_or_sent_again_of_late_is_not_removed(store, file):
    store.put(DIGEST, file, b"{}")
    place = store.open(DIGEST).file.parent
    os.utime(place, (1000.0, 1000.0))

    store.put(DIGEST, file, b"{}")
    assert not store.remove(DIGEST, never, older_than=2000.0)
    os.utime(place, (1000.0, 1000.0))
    assert store.remove(DIGEST, never, older_than=2000.0)
