"""A registry whose adapters' bytes are in a bucket, used from several machines."""

from contextlib import contextmanager

import pytest

from adapters_core.contract.digest import digest_of
from jobs_made import upload
from registry import NewVersion, publish, withdraw
from registry.backup.backup import back_up
from registry.backup.restore import restore
from registry.connect import connect
from registry.errors import (
    AdapterNotFound,
    ForeignStore,
    RegistryUnusable,
    StoreUnavailable,
)
from registry.objects.bucket import Bucket
from registry.objects.place import store_place
from registry.store.unknown import MIN_AGE_S
from s3_server import S3Server

LATER = 10_000_000_000.0
DAY_S = 86_400.0


@pytest.fixture
def place(s3):
    return f"s3://{s3.bucket()}/overtone"


@pytest.fixture
def machine(url, client, tmp_path, place):
    """Return what opens a registry on a machine: a data folder of its own, and the bucket."""
    client.flushall()

    @contextmanager
    def machine(name, store=place, database=0):
        with connect(f"{url}?db={database}", tmp_path / name, store=store) as registry:
            yield registry

    return machine


@pytest.fixture
def add(describe, tmp_path):
    def add(registry, name, number=0):
        file = tmp_path / f"upload-{number}"
        file.write_bytes(f"coefficients {number}".encode())
        digest = digest_of(file, b"{}")
        facts = describe(number, digest=digest)
        new = NewVersion(name=name, description=facts, created_at=1)
        publish(registry.adapters, registry.blobs, new, file, b"{}")
        return digest

    return add


def test_what_is_published_on_one_machine_is_read_on_another(machine, add, tmp_path):
    with machine("one") as one, machine("two") as two:
        one.open_store()
        two.open_store()
        digest = add(one, "poet")

        record = two.adapters.resolve("poet")
        assert two.blobs.open_whole(record.digest).file.read_bytes() == b"coefficients 0"
        assert one.ownership.standing().is_settled
        assert withdraw(two.adapters, two.blobs, "poet") == [digest]
        assert list(one.blobs.all()) == []
    assert not list((tmp_path / "one" / "blobs").glob("[0-9a-f][0-9a-f]"))


def test_another_registry_is_refused_and_so_is_the_folder_of_another_store(machine, s3, tmp_path):
    with machine("one") as registry:
        registry.open_store()
    with machine("two", database=1) as other, pytest.raises(ForeignStore, match="belongs to"):
        other.open_store()
    elsewhere = f"s3://{s3.bucket()}"
    with machine("three", elsewhere, database=1) as other:
        other.open_store()
    with machine("three") as other, pytest.raises(ForeignStore, match="another data folder"):
        other.open_store()
    with machine("one") as registry:
        registry.open_store()


def test_a_store_in_a_folder_that_was_copied_to_a_bucket_goes_on(machine, add, tmp_path, s3):
    """As `aws s3 sync` copies it."""
    with machine("one", None) as registry:
        registry.open_store()
        digest = add(registry, "poet")
        file = upload(registry.files)
    folder, place = tmp_path / "one" / "blobs", f"s3://{s3.bucket()}/copied"
    bucket = Bucket(store_place(place, folder))
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            bucket.put(str(path.relative_to(folder)), path.read_bytes())

    with machine("one", place) as registry:
        registry.open_store()
        assert registry.files.open(file.id).exists()
        assert registry.blobs.open_whole(digest)
    with machine("two", place) as registry:
        registry.open_store()
        assert registry.blobs.open_whole(digest)


def test_what_no_record_names_is_removed_after_its_grace_and_nothing_else(
    machine, add, tmp_path, place
):
    with machine("one") as registry:
        registry.open_store()
        digest = add(registry, "poet")
        file = tmp_path / "stray"
        file.write_bytes(b"stray")
        stray = digest_of(file, b"{}")
        registry.blobs.put(stray, file, b"{}")
        config = f"ff/{'f' * 64}/adapter_config.json"  # as a program that died leaves it
        Bucket(store_place(place, tmp_path)).put(config, b"{}")

        found = registry.unknown.look(LATER)
        assert {each.kind for each in found} == {"adapter", "unfinished"}
        assert stray in {each.name for each in found}
        assert registry.unknown.remove(found, DAY_S, LATER) == []  # listed just now
        later = LATER + DAY_S + MIN_AGE_S
        gone = registry.unknown.remove(registry.unknown.look(later), DAY_S, later)
        assert len(gone) == 2
        assert [name for name, _ in registry.blobs.all()] == [digest]
        assert registry.unknown.look(later) == []


def test_a_backup_of_a_bucket_is_restored_into_another(machine, add, tmp_path, s3):
    with machine("one") as registry:
        registry.open_store()
        digest = add(registry, "poet")
        file = upload(registry.files)
        made = back_up(registry, tmp_path / "backup", "0.2.0", 10.0)
        assert made.missing == ()

    with machine("two", f"s3://{s3.bucket()}/new", database=1) as registry:
        assert restore(registry, tmp_path / "backup", force=False, now=11.0) == made
        registry.open_store()
        assert registry.blobs.open_whole(registry.adapters.resolve("poet").digest)
        assert registry.files.open(file.id).exists()
        assert [name for name, _ in registry.blobs.all()] == [digest]
    with machine("three", None, database=2) as registry:  # and into a folder
        assert restore(registry, tmp_path / "backup", force=False, now=11.0) == made
        registry.open_store()
        assert registry.blobs.open_whole(digest)


def test_without_its_bucket_copies_are_read_and_nothing_is_published(
    url, client, tmp_path, add, monkeypatch
):
    client.flushall()
    server = S3Server()
    try:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        place = f"s3://{server.bucket()}"
        with connect(url, tmp_path / "data", store=place) as registry:
            registry.open_store()
            digest = add(registry, "poet")
            server.close()

            assert registry.blobs.open_whole(digest)
            with pytest.raises(StoreUnavailable, match="does not answer"):
                add(registry, "clerk", 1)
            with pytest.raises(AdapterNotFound):
                registry.adapters.resolve("clerk")
            with pytest.raises(RegistryUnusable, match="nothing listens"):
                registry.open_store()
            server.start()  # it has lost everything
            with pytest.raises(StoreUnavailable):
                add(registry, "clerk", 1)
    finally:
        server.close()
