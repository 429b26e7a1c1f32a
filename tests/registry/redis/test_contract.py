"""What a registry must do in every shape in which its Redis is run, in short."""

import pytest

from adapters_core.contract.digest import digest_of
from jobs_made import claim, fence_of, spec_for, upload
from registry import NewVersion, publish
from registry.adapters import changes
from registry.adapters.directory import Directory, Following
from registry.backup.backup import back_up
from registry.backup.restore import restore
from registry.connect import connect
from registry.errors import AdapterNotFound
from registry.redis import keys
from registry.redis.client import open_client
from registry.redis.snapshot import Snapshot
from waiting import until


def test_names_are_published_moved_listed_and_told(client, adapters, put):
    before = changes.newest(client)
    put(1, alias="prod")
    put(2)
    put(1, name="clerk")
    adapters.move_alias("poet", "prod", 2, None)
    adapters.delete("poet", 1)

    assert adapters.resolve("poet@prod").version == 2
    assert [entry.latest.name for entry in adapters.list(10)] == ["clerk", "poet"]
    found = changes.read_after(client, before.id, block_ms=100)
    assert [change.kind for change in found] == [
        *("published", "aliased", "published", "published", "aliased", "deleted")
    ]
    assert before.may_lead_to(changes.newest(client))
    assert changes.newest(client).id == found[-1].id


@pytest.fixture
def directory(redis_server, client, adapters):
    with open_client(redis_server.url) as followed:
        directory = Directory(adapters, followed)
        directory.start()
        until(lambda: directory.following is Following.CAUGHT_UP)
        yield directory
        directory.close()


def test_a_server_hears_of_changes(directory, put):
    put(1)
    assert directory.resolve("poet").version == 1
    put(2)
    until(lambda: directory.resolve("poet").version == 2)


@pytest.mark.slow
def test_a_server_notices_that_the_data_are_gone(directory, client, put):
    put(1)
    assert directory.resolve("poet").version == 1
    client.unlink(*client.scan_iter(f"{keys.PREFIX}*"))
    until(lambda: _is_gone(directory, "poet"))


def test_a_job_goes_from_its_queue_to_one_worker_alone(jobs, claims, files):
    spec = spec_for(upload(files))
    jobs.create(spec, now=1.0)
    jobs.queue(spec.id, now=2.0)

    held = claim(claims)

    assert held.id == spec.id
    assert claims.take(held.spec.base_name, "two", 0, now=3.0) is None
    assert claims.validated(fence_of(held), now=3.0).state == "running"


def test_a_backup_holds_every_key_and_puts_it_back(redis_server, client, describe, tmp_path):
    with connect(redis_server.url, tmp_path / "data") as registry:
        registry.open_store()
        file = tmp_path / "upload"
        file.write_bytes(b"coefficients")
        facts = describe(1, digest=digest_of(file, b"{}"))
        new = NewVersion(name="poet", description=facts, created_at=1)
        publish(registry.adapters, registry.blobs, new, file, b"{}")
        upload(registry.files)
        made = back_up(registry, tmp_path / "backup", "0.2.0", 10.0)
        before = Snapshot.take(client).commands
        registry.client.unlink(*registry.client.scan_iter(f"{keys.PREFIX}*"))
        with pytest.raises(AdapterNotFound):
            registry.adapters.resolve("poet")

    with connect(redis_server.url, tmp_path / "new") as registry:
        assert restore(registry, tmp_path / "backup", force=False, now=11.0) == made
        registry.open_store()
        record = registry.adapters.resolve("poet")
        assert registry.blobs.open_whole(record.digest).file.read_bytes() == b"coefficients"
        assert Snapshot.take(client).commands == before


def _is_gone(directory, name):
    try:
        directory.resolve(name)
    except AdapterNotFound:
        return True
    return False
