"""What was in a registry and its store when a backup was made is there after it is restored."""

import json
import shutil
import threading
from contextlib import contextmanager

import pytest

from adapters_core.contract.digest import digest_of
from batches_made import create as create_batch
from jobs_made import fence_of, run, spec_for, upload
from registry import Answered, Fence, NewVersion, publish, withdraw
from registry.backup.backup import back_up
from registry.backup.manifest import NAME, Manifest
from registry.backup.restore import restore
from registry.connect import connect
from registry.errors import BackupUnusable, ForeignStore, SchemaTooNew
from registry.redis import keys
from registry.redis.snapshot import Snapshot
from registry.store import schema
from waiting import until


@pytest.fixture
def opened(url, client, tmp_path):
    """Return what opens the registry in a database with the store in a folder."""
    client.flushall()

    @contextmanager
    def opened(database=0, store="store"):
        place = f"{url}?db={database}"
        with connect(place, tmp_path / "data", store=tmp_path / store) as registry:
            yield registry

    return opened


@pytest.fixture
def add(describe, tmp_path):
    """Return what publishes an adapter with a digest that its bytes have."""

    def add(registry, name, number=0, **words):
        file = tmp_path / f"upload-{number}"
        file.write_bytes(f"coefficients {name} {number}".encode())
        digest = digest_of(file, b"{}")
        new = NewVersion(
            name=name, description=describe(number, digest=digest), created_at=1, **words
        )
        publish(registry.adapters, registry.blobs, new, file, b"{}")
        return digest

    return add


def fill(registry, add):
    """Make one of everything that a registry keeps; return the open job's id."""
    registry.open_store()
    add(registry, "poet", alias="prod")
    add(registry, "poet", 1, metadata={"note": "é \ud7ff"})
    add(registry, "org/clerk")
    gone = add(registry, "gone")
    withdraw(registry.adapters, registry.blobs, "gone")
    assert gone
    waiting, running = (spec_for(upload(registry.files, b'{"text": "%d"}' % i)) for i in range(2))
    for spec in (running, waiting):
        registry.jobs.create(spec, now=1.0)
        registry.jobs.queue(spec.id, now=1.0)
    fence = fence_of(run(registry.claims))
    (registry.job_folders.take(fence) / "step-00000001").mkdir()
    (registry.job_folders.take(fence) / "step-00000001" / "state.json").write_text("{}")
    (registry.job_folders.take(fence) / ".step-00000002.part").write_text("half")
    batch = create_batch(registry.batches, registry.files)
    with registry.batch_folders.open(Fence(batch.id, 1), 3) as answers:
        answers.add([Answered(0, "output", b'{"n":0}')])
    return running.id


def content_of(folder):
    """Return all that a store keeps for its users, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    }


def all_are_whole(registry):
    """Open every blob that a record names; return how many there are."""
    named = Snapshot.take(registry.client).hash(keys.DIGESTS)
    for digest in named:
        registry.blobs.open_whole(digest)
    return len(named)


def all_keys(registry):
    return Snapshot.take(registry.client).commands


def test_everything_comes_back_in_another_registry_and_store(opened, add, tmp_path):
    with opened() as registry:
        id_ = fill(registry, add)
        made = back_up(registry, tmp_path / "backup", "0.2.0", 10.0)
        keys_before = all_keys(registry)
    bytes_before = content_of(tmp_path / "store")
    shutil.rmtree(tmp_path / "store")

    with opened(1, "elsewhere") as registry:
        assert restore(registry, tmp_path / "backup", force=False, now=11.0) == made
        registry.open_store()
        assert all_keys(registry) == keys_before
        assert registry.adapters.resolve("poet@prod").version == 1
        assert registry.jobs.get(id_).state == "running"
        assert all_are_whole(registry) == 3
    assert content_of(tmp_path / "elsewhere") == bytes_before
    assert made.missing == ()
    assert (made.program, made.schema, made.taken_at) == ("0.2.0", schema.CURRENT, 10.0)


@pytest.fixture
def backup(opened, add, tmp_path):
    """The folder of a backup."""
    with opened() as registry:
        fill(registry, add)
        back_up(registry, tmp_path / "backup", "0.2.0", 10.0)
    return tmp_path / "backup"


def test_it_comes_back_in_another_kind_of_server(opened, add, backup, plain_server, tmp_path):
    with opened() as registry:
        keys_before = all_keys(registry)
    with connect(plain_server.url, tmp_path / "data", store=tmp_path / "elsewhere") as registry:
        restore(registry, backup, force=False, now=11.0)
        registry.open_store()
        assert all_keys(registry) == keys_before


def test_what_is_there_is_replaced_only_by_force_and_is_kept(opened, add, backup, tmp_path):
    with opened(1, "full") as registry:
        registry.open_store()
        add(registry, "newer", 7)
    bytes_before = content_of(tmp_path / "full")
    with opened(1, "full") as registry:
        keys_before = all_keys(registry)
        with pytest.raises(BackupUnusable, match="not empty") as caught:
            restore(registry, backup, force=False, now=11.0)
        assert "--force" in caught.value.message
        assert (content_of(tmp_path / "full"), all_keys(registry)) == (bytes_before, keys_before)

        restore(registry, backup, force=True, now=12.0)
        registry.open_store()
        assert all_are_whole(registry) == 3
        assert "newer" not in [each.name for each in registry.adapters.list(10)]
    kept = tmp_path / "full" / ".replaced" / "12"
    assert Snapshot.read(kept / "registry.jsonl").commands == keys_before
    bytes_kept = content_of(kept)
    del bytes_kept["registry.jsonl"]
    assert bytes_kept == bytes_before


def change(path):
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


DAMAGES = {
    "changed": change,
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "missing": lambda path: path.unlink(),
}
PLACES = {
    "coefficients": "store/??/*/adapter_model.safetensors",
    "training file": "store/files/file-*",
    "keys": "registry.jsonl",
    "mark": "store/store.json",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_damaged_backup_changes_nothing(opened, backup, tmp_path, place, damage):
    path = sorted(backup.glob(place))[0]
    damage(path)
    with opened(1, "new") as registry:
        with pytest.raises(BackupUnusable, match=path.name):
            restore(registry, backup, force=True, now=11.0)
        assert all_keys(registry) == []
    assert content_of(tmp_path / "new") == {}


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"format": 2}', b'{"format": 1}', None])
def test_a_folder_without_a_manifest_is_no_backup(opened, backup, content):
    (backup / NAME).unlink()
    if content is not None:
        (backup / NAME).write_bytes(content)
    with opened(1, "new") as registry, pytest.raises(BackupUnusable, match=NAME):
        restore(registry, backup, force=False, now=11.0)


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "store/../../outside"])
def test_no_path_leads_out_of_a_backup(opened, backup, path):
    given = json.loads((backup / NAME).read_text())
    given["files"][path] = given["files"]["registry.jsonl"]
    (backup / NAME).write_text(json.dumps(given))
    with pytest.raises(BackupUnusable, match="no path in a backup"):
        Manifest.read(backup)


def test_a_backup_of_a_later_version_is_refused(opened, backup):
    given = json.loads((backup / NAME).read_text())
    (backup / NAME).write_text(json.dumps(given | {"schema": schema.CURRENT + 1}))
    with opened(1, "new") as registry, pytest.raises(SchemaTooNew, match="later version"):
        restore(registry, backup, force=False, now=11.0)


def test_a_store_in_use_is_not_restored_into(opened, backup):
    with opened() as server:
        server.open_store()
        with opened() as registry, pytest.raises(ForeignStore, match="stop them first"):
            restore(registry, backup, force=True, now=11.0)
        with opened() as registry:
            assert all_are_whole(registry) == 3


def test_a_registry_without_room_shows_nothing_and_the_next_try_is_whole(
    opened, client, backup, tmp_path
):
    with opened(1, "new") as registry:
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(BackupUnusable, match="restore again"):
                restore(registry, backup, force=False, now=11.0)
            assert all_keys(registry) == []
        finally:
            client.config_set("maxmemory", 0)
        restore(registry, backup, force=True, now=12.0)
        registry.open_store()
        assert all_are_whole(registry) == 3


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_the_store_has_lost_is_named_and_the_rest_is_kept(opened, add, tmp_path, damage):
    with opened() as registry:
        fill(registry, add)
        lost = add(registry, "lost", 9)
        damage(registry.blobs.open(lost).file)
        made = back_up(registry, tmp_path / "backup", "0.2.0", 10.0)
    assert made.missing == (lost,)
    with opened(1, "new") as registry:
        restore(registry, tmp_path / "backup", force=False, now=11.0)
        registry.open_store()
        (digest,) = made.missing
        assert not (tmp_path / "new" / digest[7:9] / digest[7:]).exists()


def test_a_backup_under_writes_holds_all_that_was_told_before_it_began(opened, add, tmp_path):
    told, over = [], threading.Event()

    def go_on():
        with opened() as writer:
            writer.open_store()
            for i in range(10_000):
                add(writer, f"a{i}", i)
                told.append(f"a{i}")
                if i % 3 == 2:
                    withdraw(writer.adapters, writer.blobs, f"a{i - 1}")
                if over.is_set():
                    return

    with opened() as registry:
        registry.open_store()
        writing = threading.Thread(target=go_on)
        writing.start()
        try:
            until(lambda: len(told) > 10)
            before = [name for i, name in enumerate(told) if i % 3 != 1]
            made = back_up(registry, tmp_path / "backup", "0.2.0", 10.0)
        finally:
            over.set()
            writing.join(30)
    assert made.missing == ()
    with opened(1, "new") as registry:
        restore(registry, tmp_path / "backup", force=False, now=11.0)
        registry.open_store()
        assert all_are_whole(registry) >= len(before)
        for name in before:
            registry.adapters.resolve(name)


@pytest.mark.parametrize("held", ["a file", "a folder with something"])
def test_a_destination_that_holds_something_is_refused(opened, tmp_path, held):
    destination = tmp_path / "backup"
    if held == "a file":
        destination.write_text("mine")
    else:
        destination.mkdir()
        (destination / "mine").write_text("mine")
    with opened() as registry:
        registry.open_store()
        with pytest.raises(BackupUnusable, match="exists already"):
            back_up(registry, destination, "0.2.0", 10.0)
        with pytest.raises(BackupUnusable, match="in the store itself"):
            back_up(registry, tmp_path / "store" / "backup", "0.2.0", 10.0)
    assert len(list(tmp_path.glob("*backup*"))) == 1
