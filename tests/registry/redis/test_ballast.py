"""On a full disk the embedded registry reads on, deletes on, and is not ended by a write."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from disks import fill, small_disk
from registry.adapters.adapters import Adapters
from registry.adapters.records import NewVersion
from registry.errors import RegistryFull, RegistryUnavailable
from registry.redis.ballast import FLOOR_BYTES, SIZE_BYTES, Ballast
from registry.redis.embedded import LOOK_S, EmbeddedServer
from waiting import until


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "32m") as disk:
        yield disk


@pytest.fixture
def server(disk: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(disk / "registry")
    yield server
    server.close()


def ballast(disk: Path) -> Path:
    return disk / "registry" / "ballast"


def test_the_ballast_is_taken_where_there_is_room_and_given_back_where_there_is_none(
    disk: Path,
) -> None:
    kept = Ballast(disk)
    assert kept.look()
    assert (disk / "ballast").stat().st_blocks * 512 >= SIZE_BYTES
    assert kept.look()

    fill(disk, FLOOR_BYTES // 2)
    before = kept.free_bytes()
    assert kept.look()  # with the room that it gave back
    assert kept.free_bytes() == before  # which is for the registry alone
    assert not (disk / "ballast").exists()
    rubbish = fill(disk, FLOOR_BYTES // 2)
    assert not kept.look()

    rubbish.unlink()
    assert kept.look()
    assert (disk / "ballast").exists()
    kept.give_back()
    kept.give_back()


def test_a_disk_without_room_for_it_has_no_ballast(disk: Path) -> None:
    fill(disk, 2 * FLOOR_BYTES)
    assert Ballast(disk).look()
    assert not (disk / "ballast").exists()


def test_a_server_on_a_full_disk_goes_on_with_its_ballasts_room(
    disk: Path, server: EmbeddedServer
) -> None:
    until(ballast(disk).exists)
    pid = server.pid
    fill(disk)
    until(lambda: not ballast(disk).exists())

    with server.client() as client:
        assert all(client.incr("count") == i + 1 for i in range(1000))
    assert server.pid == pid


def test_a_server_whose_room_is_all_used_refuses_writes_and_answers_reads(
    disk: Path, server: EmbeddedServer, put_one
) -> None:
    pid = server.pid
    until(ballast(disk).exists)
    with server.client() as client:
        adapters = Adapters(client)
        record = put_one(adapters, 1)
        fill(disk)
        until(lambda: not ballast(disk).exists())

        def is_refused() -> bool:
            fill(disk)  # again: what the ballast held is free only some time after its name is gone
            return client.config_get("min-replicas-to-write")["min-replicas-to-write"] == "1"

        until(is_refused)

        for write in (lambda: put_one(adapters, 2), lambda: adapters.delete("poet")):
            with pytest.raises(RegistryFull, match="full"):
                write()
        assert adapters.resolve("poet") == record

        (disk / "rubbish").unlink()
        until(lambda: client.config_get("min-replicas-to-write")["min-replicas-to-write"] == "0")
        assert put_one(adapters, 2).version == 2
    assert server.pid == pid


def test_a_write_on_a_disk_that_filled_up_just_now_costs_one_restart_and_no_record(
    disk: Path, server: EmbeddedServer, put_one
) -> None:
    until(ballast(disk).exists)
    with server.client() as client:
        adapters = Adapters(client)
        record = put_one(adapters, 1)
        fill(disk)
        until(lambda: not (_takes(lambda: put_one(adapters, 2)) and ballast(disk).exists()))
        until(lambda: _takes(lambda: put_one(adapters, 3)))
        assert adapters.resolve("poet@1") == record
        second = server.pid
        deadline = time.monotonic() + 3 * LOOK_S  # no crash after crash
        while time.monotonic() < deadline:
            assert put_one(adapters, 3)
        assert server.pid == second


def test_other_refusals_for_want_of_room_are_named_alike(plain_server, put_one) -> None:
    from registry.redis.client import open_client

    with open_client(plain_server.url) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1")
        with pytest.raises(RegistryFull):
            put_one(Adapters(client), 1)


def test_another_server_that_lacks_a_replica_is_not_called_full(plain_server, put_one) -> None:
    from registry.redis.client import open_client

    with open_client(plain_server.url) as client:
        client.config_set("min-replicas-to-write", "1")
        with pytest.raises(RegistryUnavailable, match="replicas") as caught:
            put_one(Adapters(client), 1)
        assert not isinstance(caught.value, RegistryFull)
        client.config_set("min-replicas-to-write", "0")
        assert put_one(Adapters(client), 1).version == 1


@pytest.fixture
def put_one(describe):
    def put_one(adapters: Adapters, number: int):
        new = NewVersion(name="poet", description=describe(number), created_at=1)
        record, _ = adapters.publish(new)
        return record

    return put_one


def _takes(write: Callable[[], object]) -> bool:
    try:
        write()
    except RegistryUnavailable:
        return False
    return True
