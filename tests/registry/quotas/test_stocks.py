"""What a tenant may have: counted and checked in one transaction, over both programs."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs_made import spec_for, upload
from registry.adapters.records import NewVersion
from registry.common.limits import Limits
from registry.errors import AdapterNotFound, NameConflict, QuotaExceeded
from registry.quotas.stocks import Held, Stocks
from registry.redis import keys
from registry.tenants import Tenants


@pytest.fixture
def put_adapter(adapters, describe):
    """Return what publishes an adapter of `8 * number` bytes."""

    def put_adapter(number, name, space="alice", **more):
        stored = f"{space}:{name}"
        new = NewVersion(name=stored, description=describe(number), created_at=1, **more)
        return adapters.publish(new)

    return put_adapter


def put(files, tenant="alice", size=100):
    path = files.begin()
    path.write_bytes(b"x" * size)
    words = {"filename": "a.jsonl", "purpose": "fine-tune", "created_by": tenant}
    return files.put(path, facts={}, now=1.0, **words)


def test_files_are_counted_with_their_bytes_and_tenant_by_tenant(client, files):
    stocks = Stocks(client)
    assert stocks.of("alice", "alice") == Held(0, 0, 0, 0, 0)
    kept = [put(files, size=size) for size in (100, 250)]
    put(files, "bob", 7)
    assert stocks.of("alice", "alice") == Held(0, 0, 2, 350, 0)
    assert stocks.of("bob", "bob") == Held(0, 0, 1, 7, 0)
    files.delete(kept[0].id)
    assert stocks.of("alice", "alice") == Held(0, 0, 1, 250, 0)


def test_one_file_more_than_allowed_is_refused_and_leaves_nothing(client, files):
    limited = files.within(Limits(files=2, file_bytes=1000))
    for _ in range(2):
        put(limited)
    before = sorted(client.keys("*"))
    told = "2 of 2 files are used, and this needs 1 more: remove what is not needed"
    with pytest.raises(QuotaExceeded, match=told):
        put(limited)
    assert sorted(client.keys("*")) == before
    assert len(list(files.all())) == 2
    put(limited, "bob")  # others have their own
    put(files)  # without limits there are none
    assert Stocks(client).of("alice", "alice").files == 3


def test_bytes_are_limited_to_the_last_one(client, files):
    limited = files.within(Limits(file_bytes=1000))
    kept = put(limited, size=600)
    with pytest.raises(QuotaExceeded, match="600 of 1000 bytes of files .* needs 401 more"):
        put(limited, size=401)
    put(limited, size=400)
    files.delete(kept.id)
    put(limited, size=600)
    assert Stocks(client).of("alice", "alice") == Held(0, 0, 2, 1000, 0)


def test_two_at_once_do_not_both_get_the_last_place(client, files):
    limited = files.within(Limits(files=5, file_bytes=300))

    def tried(_):
        try:
            return bool(put(limited))
        except QuotaExceeded:
            return False

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(tried, range(16))) == 3
    assert Stocks(client).of("alice", "alice") == Held(0, 0, 3, 300, 0)


def test_only_jobs_that_have_not_ended_count(client, files, jobs):
    limits = Limits(jobs=2)
    specs = [spec_for(upload(files), created_by="alice") for _ in range(4)]
    first, second = (jobs.create(spec, now=1.0, limits=limits) for spec in specs[:2])
    jobs.queue(first.id, now=2.0)
    jobs.pause(first.id, now=3.0)
    with pytest.raises(QuotaExceeded, match="2 of 2 training jobs that have not ended are used"):
        jobs.create(specs[2], now=4.0, limits=limits)
    assert client.exists(keys.job(specs[2].id)) == 0
    assert jobs.create(specs[1], now=4.0, limits=limits).id == second.id  # again is harmless
    other = spec_for(upload(files), created_by="bob")
    jobs.create(other, now=4.0, limits=limits)
    jobs.cancel(second.id, now=5.0)
    jobs.create(specs[2], now=6.0, limits=limits)
    assert Stocks(client).of("alice", "alice").jobs == 2
    assert Stocks(client).of("bob", "bob").jobs == 1


def test_adapters_are_names_and_their_bytes_those_of_all_versions(client, adapters, put_adapter):
    for number, name in ((1, "a"), (2, "a"), (3, "b")):
        put_adapter(number, name)
    put_adapter(9, "a", "bob")
    put_adapter(3, "b")  # the same bytes again
    assert Stocks(client).of("alice", "alice") == Held(2, 48, 0, 0, 0)
    assert Stocks(client).of("bob", "bob") == Held(1, 72, 0, 0, 0)
    adapters.delete("alice:a", 1)
    assert Stocks(client).of("alice", "alice") == Held(2, 40, 0, 0, 0)
    adapters.delete("alice:a")
    assert Stocks(client).of("alice", "alice") == Held(1, 24, 0, 0, 0)


def test_a_new_name_is_refused_and_a_new_version_is_not(client, put_adapter):
    limits = Limits(adapters=1)
    put_adapter(1, "a", limits=limits)
    before = {key: client.dump(key) for key in client.keys("*")}
    with pytest.raises(QuotaExceeded, match="1 of 1 adapters are used, and this needs 1 more"):
        put_adapter(2, "b", limits=limits)
    assert {key: client.dump(key) for key in client.keys("*")} == before
    put_adapter(2, "a", limits=limits)
    put_adapter(1, "b", "bob", limits=limits)


def test_bytes_of_adapters_are_limited_to_the_last_one(client, put_adapter):
    limits = Limits(adapter_bytes=80)
    put_adapter(6, "a", limits=limits)
    with pytest.raises(QuotaExceeded, match="48 of 80 bytes of adapters .* needs 40 more"):
        put_adapter(5, "a", limits=limits)
    put_adapter(4, "b", limits=limits)
    put_adapter(6, "a", limits=limits)  # is there already
    assert Stocks(client).of("alice", "alice") == Held(2, 80, 0, 0, 0)


def test_uploads_at_once_do_not_share_the_last_place(put_adapter):
    limits = Limits(adapters=3)

    def tried(number):
        try:
            return put_adapter(1, f"name-{number}", limits=limits)[1]
        except QuotaExceeded:
            return False

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(tried, range(16))) == 3


def test_a_job_for_a_new_adapter_needs_a_place_for_it(files, jobs, put_adapter):
    limits = Limits(adapters=1)
    put_adapter(1, "poet")
    owned = {"created_by": "alice", "space": "alice"}
    jobs.create(spec_for(upload(files), **owned), now=1.0, limits=limits)  # a version of poet
    with pytest.raises(QuotaExceeded, match="1 of 1 adapters"):
        jobs.create(spec_for(upload(files), name="new", **owned), now=1.0, limits=limits)


def sums(client):
    """The keys of sums that are kept."""
    return sorted(client.scan_iter(f"{keys.BYTES}*"))


MANY = Limits(adapter_bytes=10**9, file_bytes=10**9)


def test_sums_of_bytes_are_kept_for_an_hour_and_only_where_they_are_limited(
    client, files, put_adapter
):
    put_adapter(1, "a")
    put(files)
    Stocks(client).of("alice", "alice")
    assert sums(client) == []
    put_adapter(2, "a", limits=MANY)
    put(files.within(MANY))
    assert len(sums(client)) == 2
    assert all(0 < client.ttl(key) <= 3600 for key in sums(client))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["publish", "delete", "put", "remove", "rename"]), st.integers(1, 4)
        ),
        max_size=12,
    )
)
def test_a_kept_sum_is_what_counting_anew_finds(client, adapters, files, put_adapter, steps):
    tenants = ["alice", "bob"]
    for each in client.scan_iter(f"{keys.PREFIX}*"):
        client.delete(each)
    for op, number in steps:
        put_adapter(4 + number, "kept", limits=MANY)
        put(files.within(MANY))
        assert sums(client)
        change(op, number, client, adapters, files, put_adapter)
        kept = [Stocks(client).of(tenant, tenant) for tenant in tenants]
        for key in sums(client):
            client.delete(key)
        assert [Stocks(client).of(tenant, tenant) for tenant in tenants] == kept


def change(op, number, client, adapters, files, put_adapter):
    """Do one thing to what alice and bob have; what cannot be done is left."""
    if op == "publish":
        put_adapter(number, f"name-{number % 2}")
    elif op == "delete":
        with suppress(AdapterNotFound):
            adapters.delete(f"alice:name-{number % 2}", number if number > 2 else None)
    elif op == "put":
        put(files, size=number)
    elif op == "remove":
        for record in files.list(1):
            files.delete(record.id)
    else:
        with suppress(NameConflict):
            Tenants(client).rename(*(("alice", "bob") if number % 2 else ("bob", "alice")))
