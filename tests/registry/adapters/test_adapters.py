"""The contract of names, versions and aliases, over both servers."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from registry.errors import (
    AdapterInUse,
    AdapterNotFound,
    InvalidName,
    NameConflict,
    PreconditionFailed,
)
from registry.redis import keys


def at_once(num_threads, act):
    """Run `act(i)` in threads that begin together; return results or errors."""
    barrier = Barrier(num_threads)

    def run(i):
        barrier.wait(10)
        try:
            return act(i)
        except PreconditionFailed as error:
            return error

    with ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(run, range(num_threads)))


# --- publishing and resolving


def test_versions_count_from_one_and_latest_follows(adapters, put, describe):
    first, created = put(1, metadata={"a": 1}, metrics={"loss": 0.25})
    second, _ = put(2)

    assert created
    assert (first.version, second.version) == (1, 2)
    assert (first.created_at, first.created_by) == (1000, "tester")
    assert first.metadata == {"a": 1}
    assert first.description == describe(1)
    assert adapters.resolve("poet") == adapters.resolve("poet@latest") == second
    assert adapters.resolve("poet@1") == adapters.resolve(f"poet@{first.digest}") == first


def test_same_digest_is_the_same_version(adapters, put):
    first, _ = put(1, now=1000)
    put(2)

    again, created = put(1, now=2000)

    assert not created
    assert again == first
    assert adapters.resolve("poet").version == 2
    assert [record.version for record in adapters.versions("poet")] == [1, 2]


def test_publishing_again_still_moves_the_alias(adapters, put):
    put(1)
    put(2, alias="prod")

    put(1, alias="prod")

    assert adapters.resolve("poet@prod").version == 1
    assert adapters.resolve("poet").version == 2


def test_same_bytes_under_two_names_are_two_records(adapters, put):
    put(1, "poet")
    record, created = put(1, "clerk")

    assert created
    assert record.version == 1


@pytest.mark.parametrize(
    "reference", ["nobody", "poet@2", "poet@prod", "poet@sha256:" + "9" * 64, "no name", "poet@00"]
)
def test_unknown_reference_is_not_found(adapters, put, reference):
    put(1)

    with pytest.raises(AdapterNotFound):
        adapters.resolve(reference)


def test_bad_name_or_alias_writes_nothing(client, put):
    for bad in ({"name": "a/b/c"}, {"alias": "latest"}, {"alias": "Prod"}):
        with pytest.raises(InvalidName):
            put(1, **bad)

    assert client.dbsize() == 0


def test_publishing_at_once_makes_one_version_a_digest(adapters, put):
    answers = at_once(16, lambda i: put(i % 4 + 1))

    assert sum(created for _, created in answers) == 4
    assert sorted({record.version for record, _ in answers}) == [1, 2, 3, 4]
    assert len({(record.version, record.digest) for record, _ in answers}) == 4
    assert adapters.resolve("poet").version == 4


def test_entry_shows_latest_and_aliases(adapters, put):
    put(1, alias="prod")
    second, _ = put(2)

    entry = adapters.get("poet")

    assert entry.latest == second
    assert entry.aliases == {"latest": 2, "prod": 1}
    assert entry.etags == {"latest": '"2"', "prod": '"1"'}


@pytest.mark.parametrize("ask", ["get", "versions", "rollback", "delete"])
def test_unknown_name_is_not_found(adapters, ask):
    with pytest.raises(AdapterNotFound, match="nobody"):
        getattr(adapters, ask)("nobody")


# --- aliases


def test_alias_moves_by_compare_and_swap(adapters, put):
    put(1)
    put(2)
    put(3)

    etag = adapters.move_alias("poet", "prod", 1, None)
    assert etag == adapters.get("poet").etags["prod"]
    etag = adapters.move_alias("poet", "prod", 2, etag)
    with pytest.raises(PreconditionFailed, match="version 2"):
        adapters.move_alias("poet", "prod", 3, '"1"')
    assert adapters.resolve("poet@prod").version == 2
    adapters.move_alias("poet", "prod", 3, f'"7", {etag}')
    adapters.move_alias("poet", "prod", 1, "*")

    assert adapters.resolve("poet@prod").version == 1


@pytest.mark.parametrize("if_match", ["*", '"1"', 'W/"1"', ""])
def test_alias_that_must_exist_and_does_not_fails_the_precondition(adapters, put, if_match):
    put(1)

    with pytest.raises(PreconditionFailed, match="does not exist"):
        adapters.move_alias("poet", "prod", 1, if_match)


def test_weak_etag_never_matches(adapters, put):
    put(1, alias="prod")

    with pytest.raises(PreconditionFailed):
        adapters.move_alias("poet", "prod", 1, 'W/"1"')


@pytest.mark.parametrize("version", [0, -1, 2, 10**30])
def test_alias_to_a_version_that_is_not_there(adapters, put, version):
    put(1)

    with pytest.raises(AdapterNotFound, match=f"poet@{version}"):
        adapters.move_alias("poet", "prod", version, None)


def test_latest_is_not_moved_by_hand(adapters, put):
    put(1)

    with pytest.raises(InvalidName, match="latest"):
        adapters.move_alias("poet", "latest", 1, None)


def test_one_of_many_swaps_at_once_wins(adapters, put):
    for number in range(1, 10):
        put(number)
    etag = adapters.move_alias("poet", "prod", 9, None)

    answers = at_once(8, lambda i: adapters.move_alias("poet", "prod", i + 1, etag))

    winners = [answer for answer in answers if isinstance(answer, str)]
    assert len(winners) == 1
    assert adapters.get("poet").etags["prod"] == winners[0]


# --- rollback


def test_rollback_goes_back_and_the_next_publish_forward(adapters, put):
    for number in (1, 2, 3):
        put(number)

    assert adapters.rollback("poet").version == 2
    assert adapters.rollback("poet").version == 1
    assert adapters.resolve("poet").version == 1
    put(3)  # these bytes again: not a new version, so the rollback stands
    assert adapters.resolve("poet").version == 1
    put(4)
    assert adapters.resolve("poet").version == 4
    assert adapters.rollback("poet").version == 3


def test_first_version_is_not_rolled_back(adapters, put):
    put(1)

    with pytest.raises(NameConflict, match="before 1"):
        adapters.rollback("poet")


# --- deleting


def test_deleted_version_is_gone_and_its_number_too(adapters, put):
    first, _ = put(1)
    second, _ = put(2)

    assert adapters.delete("poet", 2) == [second.digest]

    assert adapters.resolve("poet") == first
    with pytest.raises(AdapterNotFound):
        adapters.resolve("poet@2")
    assert put(2)[0].version == 3


def test_numbers_are_not_given_again_after_the_name_was_deleted(adapters, put):
    put(1, alias="prod")
    put(2)

    assert len(adapters.delete("poet")) == 2

    assert adapters.list(10) == []
    with pytest.raises(AdapterNotFound):
        adapters.get("poet")
    assert put(1)[0].version == 3
    assert adapters.get("poet").aliases == {"latest": 3}


def test_deleting_all_leaves_counters_and_news_only(adapters, client, put):
    put(1, alias="prod")
    put(2, method="loca")
    adapters.delete("poet")

    left = {key.decode() for key in client.scan_iter()}
    assert left == {keys.COUNTERS, keys.CHANGES, keys.SEQUENCE}


def test_deleting_the_last_version_deletes_the_name(adapters, put):
    put(1)
    adapters.delete("poet", 1)

    assert adapters.list(10) == []


def test_rolled_back_version_does_not_return_when_latest_is_deleted(adapters, put):
    for number in (1, 2, 3):
        put(number)
    adapters.rollback("poet")

    adapters.delete("poet", 2)
    assert adapters.resolve("poet").version == 1
    adapters.delete("poet", 1)
    assert adapters.resolve("poet").version == 3


def test_version_with_an_alias_is_in_use(adapters, put):
    put(1, alias="prod")
    put(2)

    with pytest.raises(AdapterInUse, match="prod"):
        adapters.delete("poet", 1)
    adapters.move_alias("poet", "prod", 2, None)
    adapters.delete("poet", 1)


def test_digest_lives_while_any_record_refers_to_it(adapters, put):
    record, _ = put(1, "poet")
    put(1, "clerk")
    put(2, "clerk")

    assert adapters.delete("poet") == []
    assert adapters.digest_is_live(record.digest)
    assert len(adapters.delete("clerk")) == 2
    assert not adapters.digest_is_live(record.digest)


def test_a_version_may_leave_latest_where_it_is(adapters, put):
    put(1, "poet", method="loca", keeps_latest=True)
    assert adapters.get("poet").aliases == {"latest": 1}  # nothing else stands there
    record, created = put(2, "poet", method="vera", keeps_latest=True)
    assert (record.version, created) == (2, True)
    assert adapters.get("poet").aliases == {"latest": 1}
    assert adapters.resolve("poet@2").description.method == "vera"
    assert [entry.name for entry in adapters.list(10, method="loca")] == ["poet"]
    assert adapters.list(10, method="vera") == []
    put(3, "poet", method="vera")
    assert adapters.get("poet").aliases == {"latest": 3}
    assert [entry.name for entry in adapters.list(10, method="vera")] == ["poet"]
