"""A tenant's files and jobs are handed over one by one, whole, and to no third tenant."""

import json

import pytest

from batches_made import create
from jobs_made import spec_for, upload
from registry.batches.batches import Batches
from registry.errors import InvalidArgument
from registry.redis import keys
from registry.tenants import Holdings, Tenants


@pytest.fixture
def tenants(client):
    return Tenants(client)


@pytest.fixture
def store(files, jobs):
    """Give a tenant a file and a job."""

    def store(tenant, now=1.0):
        file = upload(files, created_by=tenant, now=now)
        spec = spec_for(file, created_by=tenant)
        jobs.create(spec, now=now)
        return file, spec

    return store


def test_files_and_jobs_are_the_new_tenants_and_otherwise_as_they_were(
    tenants, store, files, jobs, client
):
    mine = [store("old", now=float(i)) for i in range(3)]
    hers, theirs = store("new", now=1.5), store("older")
    client.hset(keys.FILES, mine[0][0].id, _with_more(client, mine[0][0].id))

    assert tenants.rename("old", "new") == [Holdings("old", 3, 3)]

    assert files.list(10, created_by="old") == []
    assert jobs.list(10, created_by="old") == []
    wanted = [mine[2], hers, mine[1], mine[0]]  # by their creation, newest first
    assert [each.id for each in files.list(10, created_by="new")] == [f.id for f, _ in wanted]
    assert [each.id for each in jobs.list(10, created_by="new")] == [s.id for _, s in wanted]
    for file, spec in mine:
        assert files.get(file.id).created_by == "new"
        record = jobs.get(spec.id)
        assert record.spec.created_by == "new"
        assert record.spec.hyperparameters == spec.hyperparameters
    assert json.loads(client.hget(keys.FILES, mine[0][0].id))["later"] == "field"
    assert files.get(theirs[0].id).created_by == "older"
    files.list(10)
    assert tenants.rename("old", "new") == []


def _with_more(client, id_):
    return json.dumps(json.loads(client.hget(keys.FILES, id_)) | {"later": "field"})


def test_batches_come_along(tenants, files, client):
    batches = Batches(client)
    mine = create(batches, files, created_by="old")
    theirs = create(batches, files, created_by="older")

    assert [held.num_batches for held in tenants.rename("old", "new")] == [1]

    assert [one.id for one in batches.list(10, created_by="new")] == [mine.id]
    assert batches.get(mine.id).spec.created_by == "new"
    assert batches.list(10, created_by="old") == []
    assert batches.get(theirs.id) == theirs


def test_a_gateways_callers_come_along(tenants, store, files):
    for name in ("gate", "gate/a", "gate/b", "gateway"):
        store(name)

    moved = tenants.rename("gate", "new")

    assert [each.tenant for each in moved] == ["gate", "gate/a", "gate/b"]
    assert [each.tenant for each in tenants.all()] == ["gateway", "new", "new/a", "new/b"]
    assert all((each.num_files, each.num_jobs) == (1, 1) for each in tenants.all())


def test_the_tenant_of_a_server_without_keys_can_be_handed_over(tenants, store):
    store("")
    assert tenants.all() == [Holdings("", 1, 1)]
    tenants.rename("", "alice")
    assert tenants.all() == [Holdings("alice", 1, 1)]


def test_a_file_that_is_deleted_meanwhile_does_not_come_back(
    tenants, store, files, jobs, monkeypatch
):
    file, spec = store("old")
    jobs.cancel(spec.id, now=2.0)
    run = tenants._scripts.run

    def after_the_deletion(op, touched, args):
        if touched[0] == keys.FILES:
            files.delete(file.id)
        return run(op, touched, args)

    monkeypatch.setattr(tenants._scripts, "run", after_the_deletion)

    assert tenants.rename("old", "new") == [Holdings("old", 0, 1)]
    assert files.list(10) == []


@pytest.mark.parametrize(("old", "new"), [("a", ""), ("a", "a"), ("a", "b/c")])
def test_what_is_no_new_name_is_refused(tenants, old, new):
    with pytest.raises(InvalidArgument, match="no new name"):
        tenants.rename(old, new)
