"""A tenant's files and jobs are handed over one by one, whole, and to no third tenant."""

import json

import pytest

from batches_made import create
from jobs_made import spec_for, upload
from registry.access.api_keys import ApiKeys
from registry.access.record import NewKey, is_secret_of
from registry.access.secret import digest_of
from registry.adapters.sharing import Sharing
from registry.batches.batches import Batches
from registry.errors import AdapterNotFound, InvalidArgument, NameConflict
from registry.quotas.tenant_limits import TenantLimits
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


def test_keys_and_limits_of_its_own_go_along(client, tenants):
    api_keys, limits = ApiKeys(client), TenantLimits(client)
    kept, secret = api_keys.create(NewKey("old", ("infer",)), now=1.0)
    ended, _ = api_keys.create(NewKey("old", ("infer",)), now=2.0)
    api_keys.revoke(ended.id, now=3.0)
    hers, _ = api_keys.create(NewKey("older", ("infer",)), now=4.0)
    limits.put("old", {"tokens_per_minute": 7})
    assert [held.num_keys for held in tenants.all() if held.tenant == "old"] == [2]

    assert tenants.rename("old", "new") == [Holdings("old", 0, 0, num_keys=2)]

    assert [each.id for each in api_keys.list(10, tenant="new")] == [ended.id, kept.id]
    assert api_keys.list(10, tenant="old") == []
    now = api_keys.get(kept.id)
    assert now.tenant == "new"
    assert is_secret_of(now, digest_of(secret.reveal().encode()), 5.0)
    assert api_keys.get(ended.id).revoked_at == 3.0
    assert api_keys.get(hers.id).tenant == "older"
    assert limits.all() == {"new": {"tokens_per_minute": 7}}
    assert tenants.rename("old", "new") == []


def test_limits_that_the_new_tenant_has_stay(client, tenants):
    limits = TenantLimits(client)
    limits.put("old", {"tokens_per_minute": 7})
    limits.put("new", {"tokens_per_minute": 9})
    tenants.rename("old", "new")
    assert limits.all() == {"new": {"tokens_per_minute": 9}}


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


def test_adapters_come_along_with_their_versions_names_and_sharing(
    tenants, adapters, client, put, jobs, store
):
    put(1, "old:support", alias="prod")
    put(2, "old:support", method="loca")
    put(3, "old:gone")
    put(4, "other:theirs")
    put(5, "common")
    adapters.delete("old:gone")
    adapters.share("old:support", Sharing(True, ("other",)))
    adapters.share("other:theirs", Sharing(tenants=("old", "third")))
    before = client.dump(keys.records("old:support"))

    assert tenants.rename("old", "new") == [Holdings("old", 0, 0, 0, 1)]

    entry = adapters.get("new:support")
    assert (entry.aliases, entry.sharing) == ({"latest": 2, "prod": 1}, Sharing(True, ("other",)))
    assert client.dump(keys.records("new:support")) == before
    assert adapters.sharing("other:theirs") == Sharing(tenants=("new", "third"))
    assert [one.name for one in adapters.list(9, space="new", method="loca")] == ["new:support"]
    assert [one.name for one in adapters.list_shared("other", 9)] == ["new:support"]
    assert adapters.list(9, space="old") == []
    with pytest.raises(AdapterNotFound):
        adapters.get("old:support")
    assert put(6, "new:support")[0].version == 3
    assert put(6, "old:support")[0].version == 3  # no number is given twice, under neither name
    assert [one.name for one in adapters.list(9)] == ["common"]
    assert [held.tenant for held in tenants.all()] == ["", "new", "old", "other"]


def test_a_jobs_and_a_batchs_space_come_along_and_the_operators_stays(tenants, files, jobs, client):
    batches = Batches(client)
    file = upload(files, created_by="old")
    specs = [spec_for(file, created_by="old", space=space) for space in ("old", "")]
    for spec in specs:
        jobs.create(spec, now=1.0)
    batch = create(batches, files, created_by="old", space="old")
    tenants.rename("old", "new")
    assert [jobs.get(spec.id).spec.space for spec in specs] == ["new", ""]
    assert jobs.get(specs[0].id).spec.stored_name == f"new:{specs[0].name}"
    assert batches.get(batch.id).spec.space == "new"


def test_names_that_both_tenants_have_are_said_before_anything_is_handed_over(
    tenants, adapters, put, store, files
):
    put(1, "old:support")
    put(2, "old:a")
    put(3, "new:support")
    store("old")
    with pytest.raises(NameConflict, match="both have an adapter 'support'"):
        tenants.rename("old", "new")
    assert len(files.list(10, created_by="old")) == len(adapters.list(9, space="old")) - 1 == 1


@pytest.mark.parametrize(("old", "new"), [("a", ""), ("a", "a"), ("a", "b/c")])
def test_what_is_no_new_name_is_refused(tenants, old, new):
    with pytest.raises(InvalidArgument, match="no new name"):
        tenants.rename(old, new)
