"""Adapters' bytes in a folder and in a bucket: the same promises."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from adapters_core.contract.digest import digest_of
from registry.adapters.blob_cache import BlobCache
from registry.adapters.blobs import BlobStore
from registry.adapters.bucket_blobs import BucketBlobs
from registry.errors import BlobDamaged, BlobMissing, InvalidName
from registry.objects.bucket import Bucket
from registry.objects.place import BucketName

DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
MIB = 1 << 20


@pytest.fixture
def bucket(s3):
    return Bucket(BucketName(s3.bucket(), "blobs"))


@pytest.fixture
def machine(bucket, tmp_path):
    """Return what opens the bucket as another machine does, with its own copies."""
    return lambda name: BucketBlobs(bucket, BlobCache(tmp_path / name, MIB))


@pytest.fixture(params=["folder", "bucket"])
def store(request, tmp_path):
    if request.param == "folder":
        return BlobStore(tmp_path / "blobs")
    return request.getfixturevalue("machine")("one")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "upload"
    path.write_bytes(b"coefficients")
    return path


@pytest.fixture
def digest(file):
    return digest_of(file, b"{}")


def never(digest):
    return False


def always(digest):
    return True


def test_a_blob_comes_back_as_it_went_in(store, file, digest):
    store.put(digest, file, b"{}")
    store.put(digest, file, b"{}")

    paths = store.open_whole(digest)

    assert paths == store.open(digest)
    assert paths.file.read_bytes() == b"coefficients"
    assert paths.config.read_bytes() == b"{}"
    assert file.exists()


def test_a_missing_blob_says_so_without_a_path(store, tmp_path):
    for ask in (store.open, store.open_whole):
        with pytest.raises(BlobMissing) as caught:
            ask(DIGEST)
        assert DIGEST in caught.value.message
        assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize(
    "bad",
    ["../../etc/passwd", "sha256:" + "../" * 21 + "a", "sha256:", "/etc", "", DIGEST + "\n"]
    + ["sha256:" + "AB" * 32, "ab" * 32, "sha256:\x00" + "a" * 63],
)
def test_a_digest_never_becomes_a_path_unchecked(store, file, tmp_path, bad):
    for act in (
        lambda: store.put(bad, file, b""),
        lambda: store.open(bad),
        lambda: store.remove(bad, never),
        lambda: store.hold(bad).__enter__(),
    ):
        with pytest.raises(InvalidName):
            act()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["upload"]


def test_many_writers_of_one_blob_all_succeed(store, file, digest):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.put(digest, file, b"{}"), range(8)))

    assert store.open_whole(digest).file.read_bytes() == b"coefficients"
    assert [name for name, _ in store.all()] == [digest]


def test_a_removed_blob_is_gone_and_a_live_one_stays(store, file, digest):
    store.put(digest, file, b"{}")

    assert not store.remove(digest, always)
    assert store.open_whole(digest)
    assert store.remove(digest, never)
    assert not store.remove(digest, never)
    with pytest.raises(BlobMissing):
        store.open_whole(digest)
    assert list(store.all()) == []
    assert list(store.unfinished()) == []


def test_a_young_blob_stays_and_an_old_one_goes(store, file, digest):
    store.put(digest, file, b"{}")

    assert not store.remove(digest, never, older_than=time.time() - 60)
    assert store.remove(digest, never, older_than=time.time() + 60)


def test_all_blobs_are_listed_and_of_a_new_store_none(store, file):
    assert list(store.all()) == []
    assert list(store.unfinished()) == []

    store.put(DIGEST, file, b"{}")
    store.put(OTHER, file, b"{}")

    assert sorted(name for name, _ in store.all()) == [DIGEST, OTHER]
    assert list(store.unfinished()) == []


def test_what_one_machine_put_another_fetches_once(bucket, machine, file, digest, tmp_path):
    machine("one").put(digest, file, b"{}")

    other = machine("two")
    paths = other.open_whole(digest)

    assert paths.file.read_bytes() == b"coefficients"
    assert paths.file.is_relative_to(tmp_path / "two")
    for found in list(bucket.list("")):
        bucket.delete(found.key)
    assert other.open_whole(digest) == paths


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_damaged_copy_is_fetched_again(machine, file, digest, name):
    store = machine("one")
    store.put(digest, file, b"{}")
    place = store.open(digest).file.parent
    (place / name).write_bytes(b"?")

    assert store.open_whole(digest).file.read_bytes() == b"coefficients"
    (place / name).unlink()
    assert store.open_whole(digest).config.read_bytes() == b"{}"


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_damaged_object_is_refused_by_name_and_an_upload_makes_it_whole(
    bucket, machine, file, digest, name
):
    machine("one").put(digest, file, b"{}")
    (key,) = [found.key for found in bucket.list("") if found.key.endswith(name)]
    bucket.put(key, b'{"r": 1}')

    other = machine("two")
    for _ in range(2):  # no copy of it is kept either
        with pytest.raises(BlobDamaged, match=digest):
            other.open_whole(digest)
    other.put(digest, file, b"{}")
    assert machine("three").open_whole(digest).file.read_bytes() == b"coefficients"


def test_who_removes_puts_back_what_was_published_meanwhile(machine, file, digest):
    """The record is written between the first question and the removal."""
    store, live = machine("one"), []
    store.put(digest, file, b"{}")

    def is_live(digest):
        live.append(digest)
        return len(live) > 1

    assert not store.remove(digest, is_live)
    assert machine("two").open_whole(digest).file.read_bytes() == b"coefficients"


def test_who_publishes_puts_again_what_was_removed_meanwhile(machine, file, digest):
    """Both questions are answered before the record is written."""
    store = machine("one")
    with store.hold(digest):
        store.put(digest, file, b"{}")
        assert machine("two").remove(digest, never)

    assert machine("three").open_whole(digest).file.read_bytes() == b"coefficients"


def test_a_config_without_its_file_is_no_blob_and_can_be_discarded(bucket, machine, file, digest):
    store = machine("one")
    store.put(digest, file, b"{}")
    (key,) = [found.key for found in bucket.list("") if found.key.endswith("safetensors")]
    bucket.delete(key)

    assert list(store.all()) == []
    (left,) = store.unfinished()
    store.discard(left)
    assert list(bucket.list("")) == []
    store.put(digest, file, b"{}")
    store.discard(left)  # whole meanwhile
    assert len(list(bucket.list(""))) == 2


def test_copies_stay_below_their_limit_and_those_in_use_stay(tmp_path):
    now = [time.time()]
    cache = BlobCache(tmp_path / "cache", 10_000, clock=lambda: now[0])
    digests = []
    for number in range(30):
        file = tmp_path / f"{number}"
        file.write_bytes(bytes([number]) * 1000)
        digests.append(digest_of(file, b"{}"))
        cache.put(digests[-1], file, b"{}")
        cache.open_whole(digests[-1])
        now[0] += 61.0
        cache.open_whole(digests[0])

    held = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert 5_000 < held <= 10_000
    for digest in (digests[0], digests[-1]):
        assert cache.open_whole(digest)
    with pytest.raises(BlobMissing):
        cache.open_whole(digests[1])
