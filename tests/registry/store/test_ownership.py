"""A store belongs to one registry: no other pair of the two starts, and none loses a byte."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs_made import spec_for, upload
from registry import NewVersion, publish, withdraw
from registry.common.fence import Fence
from registry.connect import Registry, connect
from registry.errors import CorruptRecord, ForeignStore, RegistryUnavailable
from registry.redis import keys
from registry.store.mark import StoreMark
from registry.store.ownership import MAX_LOOKED_FOR
from registry.store.standing import Identity, Standing, fault_of

LATER = 10_000_000_000.0
OWN, FOREIGN, EMPTY, OLD = 0, 1, 2, 3  # numbers of databases


@pytest.fixture
def opened(url, client, tmp_path):
    """Return what opens the registry in a database with the store in a folder."""
    client.flushall()

    @contextmanager
    def opened(database: int, store: str) -> Iterator[Registry]:
        place = f"{url}?db={database}"
        with connect(place, tmp_path / "data", store=tmp_path / store) as registry:
            yield registry

    return opened


@pytest.fixture
def fill(describe, tmp_path):
    """Return what puts two adapters, a training file and a job's folder into a registry's store."""

    def fill(registry: Registry, first: int) -> None:
        for number in (first, first + 1):
            add(registry, describe(number), tmp_path)
        spec = spec_for(upload(registry.files))
        registry.jobs.create(spec, now=1.0)
        (registry.job_folders.take(Fence(spec.id, 1)) / "state").write_bytes(b"a checkpoint")

    return fill


def add(registry: Registry, description, folder: Path, name: str = "") -> None:
    coefficients = folder / "coefficients"
    coefficients.write_bytes(b"coefficients")
    name = name or f"a{description.digest[-3:]}"
    new = NewVersion(name=name, description=description, created_at=1)
    publish(registry.adapters, registry.blobs, new, coefficients, b"{}")


def held_in(folder: Path) -> dict[str, bytes]:
    """Return all that a store keeps for its users, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("store.json", "unknown.json")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def make_pairs(opened, fill, client, tmp_path) -> None:
    """Two registries with their stores, one registry without anything, and a pair without ids."""
    for database, store, first in ((OWN, "own", 0), (FOREIGN, "foreign", 10), (OLD, "old", 20)):
        with opened(database, store) as registry:
            registry.ownership.settle()
            fill(registry, first)
    with opened(OLD, "old") as registry:
        registry.client.delete(keys.IDENTITY)
    (tmp_path / "old" / "store.json").unlink()


#: (store, registry) of those that may start; every other pair is refused.
GOOD = {("own", OWN), ("foreign", FOREIGN), ("old", OLD), ("new", EMPTY)}


@pytest.mark.parametrize("store", ["new", "own", "foreign", "old"])
@pytest.mark.parametrize("database", [OWN, FOREIGN, EMPTY, OLD])
def test_every_pair_of_store_and_registry_keeps_every_byte(
    opened, fill, client, tmp_path, store, database
):
    make_pairs(opened, fill, client, tmp_path)
    before = {name: held_in(tmp_path / name) for name in ("own", "foreign", "old")}
    assert all(len(found) == 6 for found in before.values())

    with opened(database, store) as registry:
        if (store, database) in GOOD:
            mark = registry.ownership.settle()
            assert mark == registry.ownership.settle()
            assert registry.ownership.standing().is_settled
            assert registry.unknown.remove(registry.unknown.look(LATER), 0, LATER) == []
        else:
            with pytest.raises(ForeignStore, match="overtone store adopt") as caught:
                registry.ownership.settle()
            assert f"--store {tmp_path / store}" in caught.value.message
            with pytest.raises(ForeignStore):
                registry.unknown.look(LATER)

    assert {name: held_in(tmp_path / name) for name in before} == before


@pytest.mark.parametrize("store", ["own", "foreign", "old"])
@pytest.mark.parametrize("database", [OWN, FOREIGN, EMPTY, OLD])
def test_adopting_removes_nothing_and_lets_the_pair_start(
    opened, fill, client, tmp_path, store, database
):
    make_pairs(opened, fill, client, tmp_path)
    before = held_in(tmp_path / store)

    with opened(database, store) as registry:
        registry.ownership.adopt()
        registry.ownership.settle()
        found = registry.unknown.look(LATER)
        kinds = sorted(each.kind for each in found)

        assert registry.unknown.remove(found, 1.0, LATER) == []  # first found just now
    assert held_in(tmp_path / store) == before
    stray = [] if (store, database) in GOOD else ["adapter", "adapter", "job folder"]
    assert kinds == (stray and [*stray, "training file"])


def test_the_former_owner_is_refused_and_its_programs_keep_the_store_from_being_adopted(
    opened, fill, client, tmp_path
):
    make_pairs(opened, fill, client, tmp_path)
    with opened(OWN, "own") as user:
        user.ownership.settle()
        with opened(EMPTY, "own") as thief, pytest.raises(ForeignStore, match="stop them first"):
            thief.ownership.adopt()
        assert user.ownership.settle().registry == user.ownership.standing().identity.id

    with opened(EMPTY, "own") as heir:
        former = StoreMark.read(tmp_path / "own").registry
        mark = heir.ownership.adopt()
        assert [registry for registry, _ in mark.former] == [former]
    with opened(OWN, "own") as user, pytest.raises(ForeignStore, match="belongs to the registry"):
        user.ownership.settle()


def test_nothing_is_collected_while_programs_of_another_registry_have_the_store_open(
    opened, fill, client, tmp_path
):
    make_pairs(opened, fill, client, tmp_path)
    with opened(FOREIGN, "foreign") as other:
        other.ownership.settle()
        with opened(OWN, "own") as registry:
            registry.ownership.settle()
            found = registry.unknown.look(LATER)
            held = next((tmp_path / "foreign" / ".users").iterdir())
            (tmp_path / "own" / ".users" / held.name).hardlink_to(held)
            with pytest.raises(ForeignStore, match="stop them first"):
                registry.unknown.remove(found, 0, LATER)


def test_a_registry_that_changes_under_a_running_program_is_not_believed(
    opened, fill, client, tmp_path
):
    with opened(OWN, "own") as registry:
        registry.ownership.settle()
        fill(registry, 0)
        found = held_in(tmp_path / "own")
        client.flushall()  # its volume was lost, and it came back empty

        with pytest.raises(ForeignStore, match="not the one"):
            registry.unknown.look(LATER)
    assert held_in(tmp_path / "own") == found


def test_a_registry_from_an_older_backup_finds_its_store_and_what_it_does_not_know_stays(
    opened, fill, client, describe, tmp_path
):
    with opened(OWN, "own") as registry:
        registry.ownership.settle()
        fill(registry, 0)
        backup = {key: client.dump(key) for key in client.keys("*")}
        for number in (5, 6):
            add(registry, describe(number), tmp_path)
        before = held_in(tmp_path / "own")
        client.flushall()
        for key, value in backup.items():
            client.restore(key, 0, value)
    with opened(OWN, "own") as registry:
        registry.ownership.settle()
        found = registry.unknown.look(LATER)
        assert [each.name for each in found] == [describe(5).digest, describe(6).digest]
        assert registry.unknown.remove(found, 60.0, LATER) == []
        assert registry.unknown.look(LATER + 50)[0].since == LATER
        assert registry.unknown.remove(found, 60.0, LATER + 50) == []
        assert held_in(tmp_path / "own") == before
        add(registry, describe(5), tmp_path)  # its uploader sends it once more

        gone = registry.unknown.remove(found, 60.0, LATER + 61)

        assert [each.name for each in gone] == [describe(6).digest]
        assert registry.blobs.open(describe(5).digest).file.read_bytes() == b"coefficients"
        assert registry.unknown.look(LATER + 61) == []


def test_many_programs_that_open_a_new_pair_at_once_agree(opened):
    barrier = threading.Barrier(6)

    def start(_: int) -> StoreMark:
        with opened(OWN, "own") as registry:
            barrier.wait(20)
            mark = registry.ownership.settle()
            barrier.wait(20)
        return mark

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(start, range(6)))) == 1


def test_of_two_registries_that_open_a_new_store_at_once_one_is_refused(opened):
    barrier = threading.Barrier(2)

    def start(database: int) -> bool:
        with opened(database, "new") as registry:
            barrier.wait(20)
            try:
                registry.ownership.settle()
            except ForeignStore:
                return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(start, (OWN, FOREIGN))) == [False, True]


@pytest.mark.parametrize("when", ["before the registry", "after the registry"])
def test_a_crash_between_the_two_ids_is_made_good_by_the_next_start(
    opened, monkeypatch, tmp_path, when
):
    written = StoreMark.write

    def crash(mark: StoreMark, folder: Path) -> None:
        if when == "before the registry":
            written(mark, folder)
            raise RegistryUnavailable("down")
        if mark.registry is not None:
            raise OSError("the power is gone")
        written(mark, folder)

    with monkeypatch.context() as broken, opened(OWN, "own") as registry:
        broken.setattr(StoreMark, "write", crash)
        with pytest.raises((OSError, RegistryUnavailable)):
            registry.ownership.settle()
    assert StoreMark.read(tmp_path / "own").registry is None

    with opened(OWN, "own") as registry:
        mark = registry.ownership.settle()
        assert mark.registry == registry.ownership.standing().identity.id


def test_a_store_whose_mark_was_lost_is_refused_and_adopted_again(opened, fill, tmp_path):
    with opened(OWN, "own") as registry:
        registry.ownership.settle()
        fill(registry, 0)
    (tmp_path / "own" / "store.json").unlink()
    with opened(OWN, "own") as registry:
        with pytest.raises(ForeignStore, match="its file store.json was lost"):
            registry.ownership.settle()
        registry.ownership.adopt()
        registry.ownership.settle()
        assert registry.unknown.look(LATER) == []


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": 2}', '{"format": 1, "store": "a", "registry": null}']
)
def test_a_damaged_mark_is_named_and_nothing_is_written(opened, tmp_path, text):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "store.json").write_text(text)
    with opened(OWN, "own") as registry, pytest.raises(CorruptRecord, match="store.json"):
        registry.ownership.settle()

    assert (tmp_path / "own" / "store.json").read_text() == text


def test_a_mark_is_read_as_it_was_written(tmp_path):
    mark = StoreMark("a" * 32).handed_to("b" * 32, 5.0).handed_to("c" * 32, 6.5)
    mark.write(tmp_path)

    assert StoreMark.read(tmp_path) == mark
    assert mark.former == (("b" * 32, 6.5),)
    assert json.loads((tmp_path / "store.json").read_text())["registry"] == "c" * 32
    assert [path.name for path in tmp_path.iterdir()] == ["store.json"]


def test_a_store_without_marks_needs_every_blob_of_its_registry():
    def fault(**changes) -> str | None:
        plain = {"mark": None, "identity": None, "store_is_empty": False}
        given = Standing(**{**plain, "registry_is_empty": False, **changes})
        return fault_of(given)

    assert fault(num_looked_for=MAX_LOOKED_FOR) is None
    assert "1 of 1000 are missing" in str(fault(num_looked_for=MAX_LOOKED_FOR, num_missing=1))
    assert "names none of it" in str(fault())
    assert fault(store_is_empty=True) is None
    assert "another folder" in str(fault(store_is_empty=True, identity=Identity("r", "s")))


def test_deleting_an_adapter_removes_its_own_bytes_only(opened, fill, describe, tmp_path):
    with opened(OWN, "own") as registry:
        registry.ownership.settle()
        fill(registry, 0)
        before = held_in(tmp_path / "own")
        withdraw(registry.adapters, registry.blobs, "a000")

    left = held_in(tmp_path / "own")
    gone = {path.split("/")[1] for path in before.keys() - left.keys()}
    assert gone == {describe(0).digest.partition(":")[2]}
