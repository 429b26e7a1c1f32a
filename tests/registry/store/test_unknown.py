"""What no record names is listed, and removed on request after a grace period."""

import os
from pathlib import Path

import pytest

from batches_made import create
from jobs_made import spec_for, upload
from registry.adapters.records import NewVersion
from registry.common.fence import Fence
from registry.connect import connect
from registry.errors import RegistryUnavailable
from registry.store.unknown import MIN_AGE_S

LATER = 10_000_000_000.0
NOBODY = "file-" + "0" * 24
NO_BATCH = "batch_" + "0" * 24
DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def registry(url, client, tmp_path):
    with connect(url, tmp_path / "data", store=tmp_path / "store") as registry:
        registry.ownership.settle()
        yield registry


@pytest.fixture
def stray(registry, tmp_path) -> dict[str, Path]:
    """Put one thing of each kind into the store, with no record of any."""
    file = tmp_path / "coefficients"
    file.write_bytes(b"coefficients")
    registry.blobs.put(DIGEST, file, b"{}")
    unfinished = registry.files.begin()
    unfinished.write_bytes(b"half")
    (tmp_path / "store" / "files" / NOBODY).write_bytes(b"its record was never written")
    folder = registry.job_folders.take(Fence("ftjob-" + "0" * 24, 1))
    (folder / "checkpoint").write_bytes(b"8 bytes!")
    registry.batch_folders.open(Fence(NO_BATCH, 1), 3).close()
    return {
        DIGEST: registry.blobs.open(DIGEST).file.parent,
        NOBODY: tmp_path / "store" / "files" / NOBODY,
        "ftjob-" + "0" * 24: folder.parent,
        NO_BATCH: tmp_path / "store" / "batches" / NO_BATCH,
        f"files/.tmp/{unfinished.name}": unfinished,
    }


def test_each_kind_is_listed_with_its_size(registry, stray):
    found = {each.name: each for each in registry.unknown.look(LATER)}

    assert found.keys() == stray.keys()
    assert {each.name: each.place for each in found.values()} == stray
    assert found[DIGEST].size_bytes == len(b"coefficients{}")
    assert found["ftjob-" + "0" * 24].size_bytes == 8
    assert {each.kind for each in found.values()} == {
        "adapter",
        "training file",
        "job folder",
        "batch folder",
        "unfinished",
    }


def test_what_was_listed_for_the_grace_goes_and_nothing_else(registry, stray, tmp_path):
    kept = upload(registry.files)
    spec = spec_for(kept)
    registry.jobs.create(spec, now=1.0)
    registry.job_folders.take(Fence(spec.id, 1))
    batch = create(registry.batches, registry.files)
    registry.batch_folders.open(Fence(batch.id, 1), 3).close()
    found = registry.unknown.look(LATER)

    assert registry.unknown.remove(found, 100.0, LATER + 99) == []
    gone = registry.unknown.remove(found, 100.0, LATER + 100)

    assert {each.name for each in gone} == stray.keys()
    assert not any(path.exists() for path in stray.values())
    assert registry.files.open(kept.id).exists()
    assert registry.job_folders.jobs() == [spec.id]
    assert [id_ for id_, _ in registry.batch_folders.all()] == [batch.id]
    assert registry.unknown.look(LATER + 100) == []


def test_what_is_young_is_neither_listed_nor_removed_whatever_the_grace(registry, stray):
    written = max(path.stat().st_mtime for path in stray.values())
    assert registry.unknown.look(written + 10) == []
    found = registry.unknown.look(written + 100)
    assert len(found) == 5

    assert registry.unknown.remove(found, 0.0, written + MIN_AGE_S - 10) == []
    assert all(path.exists() for path in stray.values())


def test_what_gets_its_record_after_it_was_listed_stays(registry, stray, describe, client):
    found = [each for each in registry.unknown.look(LATER) if each.kind == "adapter"]
    description = describe(1, digest=DIGEST)
    new = NewVersion(name="poet", description=description, created_at=1)
    registry.adapters.publish(new)

    assert registry.unknown.remove(found, 0.0, LATER) == []
    assert stray[DIGEST].exists()


def test_what_is_sent_again_while_it_is_collected_is_young_again(registry, stray, tmp_path):
    old = stray[DIGEST].stat().st_mtime - 2 * MIN_AGE_S
    os.utime(stray[DIGEST], (old, old))
    now = old + 2 * MIN_AGE_S
    found = registry.unknown.look(now)
    registry.blobs.put(DIGEST, tmp_path / "coefficients", b"{}")  # the record follows

    assert registry.unknown.remove(found, 0.0, now) == []
    assert stray[DIGEST].exists()


def test_nothing_goes_while_the_registry_is_down(registry, stray, monkeypatch):
    found = registry.unknown.look(LATER)

    def down(*args):
        raise RegistryUnavailable("down")

    monkeypatch.setattr(registry.ownership._scripts, "run", down)
    for ask in (registry.unknown.look, lambda now: registry.unknown.remove(found, 0.0, now)):
        with pytest.raises(RegistryUnavailable):
            ask(LATER)
    assert all(path.exists() for path in stray.values())


def test_since_when_something_is_unknown_is_forgotten_when_it_is_known_again(
    registry, stray, describe
):
    registry.unknown.look(LATER)
    description = describe(1, digest=DIGEST)
    new = NewVersion(name="poet", description=description, created_at=1)
    registry.adapters.publish(new)
    assert DIGEST not in {each.name for each in registry.unknown.look(LATER + 1)}
    registry.adapters.delete("poet")

    found = {each.name: each.since for each in registry.unknown.look(LATER + 2)}

    assert found[DIGEST] == LATER + 2
    assert found[NOBODY] == LATER


@pytest.mark.parametrize("text", ["", "[1]", '{"a": "b"}', "{"])
def test_notes_that_cannot_be_read_begin_anew(registry, stray, tmp_path, text):
    registry.unknown.look(LATER)
    (tmp_path / "store" / "unknown.json").write_text(text)

    assert {each.since for each in registry.unknown.look(LATER + 5)} == {LATER + 5}
