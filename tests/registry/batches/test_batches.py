"""A batch goes through its states once, whoever asks, and holds its file meanwhile."""

import pytest

from batches_made import BASE, claimed, create, file_of, spec_on
from registry.batches.batches import Batches
from registry.batches.claims import BatchClaims
from registry.batches.record import FROM, STATES, RequestCounts
from registry.batches.requests import RequestFault
from registry.common.pages import MAX_PAGE
from registry.errors import (
    BatchNotFound,
    CorruptRecord,
    FenceLost,
    FileNotFound,
    InvalidArgument,
    JobConflict,
)
from registry.redis import keys

NOBODY = "batch_" + "0" * 24
FAULT = RequestFault("invalid_json_line", "is not JSON", 3, "body")
DONE = RequestCounts(3, 2, 1)


@pytest.fixture
def batches(client):
    return Batches(client)


@pytest.fixture
def claims(client):
    return BatchClaims(client)


@pytest.fixture
def held(batches, claims, files):
    """A claimed batch in `in_progress`."""
    record = claimed(claims, create(batches, files))
    return claims.begin(record, now=3.0)


def result(files, kind="output"):
    path = files.begin()
    path.write_bytes(b"{}\n")
    words = {"filename": f"{kind}.jsonl", "purpose": "batch_output", "created_by": "me"}
    return files.placed(path, facts={}, now=9.0, **words)


def test_a_new_batch_is_there_as_it_was_created(batches, files):
    file = file_of(files)
    spec = spec_on(file, metadata={"a": "b"})

    record = batches.create(spec, 3, now=2.5)

    assert batches.get(record.id) == record
    assert (record.spec, record.state, record.counts) == (spec, "validating", RequestCounts(3))
    assert (record.created_at, record.expires_at) == (2.5, 86_402.5)
    assert (record.fence, record.owner, record.faults) == (0, "", ())
    assert batches.counts()["validating"] == 1


def test_a_batch_over_no_file_leaves_no_record(batches):
    with pytest.raises(FileNotFound):
        batches.create(spec_on("file-" + "0" * 24), 3, now=1.0)

    assert batches.list(10) == []


def test_words_that_are_too_long_are_refused(batches, files):
    with pytest.raises(InvalidArgument):
        create(batches, files, metadata={"a": "x" * 30_000})

    assert batches.list(10) == []


@pytest.mark.parametrize("id_", [NOBODY, "", "batch_1", "../x", "batch_" + "A" * 24])
def test_what_is_no_batch_is_not_looked_for(batches, id_):
    for ask in (batches.get, lambda id_: batches.cancel(id_, now=1.0)):
        with pytest.raises(BatchNotFound):
            ask(id_)
    with pytest.raises(BatchNotFound):
        batches.list(1, after=id_ or "x")


def test_a_list_is_walked_from_the_newest_and_keeps_tenants_apart(batches, files):
    mine = [create(batches, files, now=float(i)).id for i in range(4)]
    create(batches, files, created_by="another", now=2.5)

    first = batches.list(3, created_by="me")
    rest = batches.list(3, after=first[-1].id, created_by="me")

    assert [one.id for one in [*first, *rest]] == mine[::-1]
    assert len(batches.list(10)) == 5


def test_only_one_server_claims_a_batch_it_has_read(batches, claims, files):
    seen = create(batches, files)

    first, second = claims.claim(seen, "one"), claims.claim(seen, "two")

    assert first is not None
    assert (first.owner, first.fence) == ("one", 1)
    assert second is None


def test_a_holder_that_reported_meanwhile_keeps_its_claim(batches, claims, files):
    held = claimed(claims, create(batches, files))
    assert claims.report(held.claim, DONE) == "validating"

    assert claims.claim(held, "two") is None
    silent = batches.get(held.id)
    assert silent.counts == DONE
    taken = claims.claim(silent, "two")
    assert taken is not None
    assert (taken.fence, taken.owner) == (2, "two")


def test_an_older_claim_can_do_nothing(batches, claims, files, held):
    claimed(claims, batches.get(held.id), "two")

    assert claims.report(held.claim) is None
    claims.release(held.claim)
    assert batches.get(held.id).owner == "two"
    for act in (
        lambda: claims.finalize(held, now=4.0),
        lambda: claims.fail(held, [FAULT], now=4.0),
        lambda: claims.finish(held, "cancelled", DONE, None, None, now=4.0),
    ):
        with pytest.raises(FenceLost):
            act()
    assert batches.get(held.id).state == "in_progress"


def test_a_batch_that_was_given_back_is_claimed_at_once(batches, claims, held):
    claims.release(held.claim, DONE)

    free = batches.get(held.id)

    assert (free.owner, free.counts, free.state) == ("", DONE, "in_progress")
    assert claims.claim(free, "two") is not None


def test_a_batch_ends_with_its_files_in_one_transaction(batches, claims, files, held, client):
    claims.finalize(held, now=4.0)
    with result(files) as output, result(files, "error") as errors:
        ended = claims.finish(held, "completed", DONE, output, errors, now=5.0)
        again = claims.finish(held, "completed", DONE, output, errors, now=6.0)

    assert again == ended
    assert (ended.output_file, ended.error_file) == (output.id, errors.id)
    assert (ended.state, ended.counts, ended.owner) == ("completed", DONE, "")
    assert ended.reached_at == {"in_progress": 3.0, "finalizing": 4.0, "completed": 5.0}
    assert files.get(output.id) == output
    assert {one.id for one in files.list(10, created_by="me", purpose="batch_output")} == {
        output.id,
        errors.id,
    }
    assert batches.open(BASE) == []
    files.delete(held.spec.input_file)


def test_a_holder_that_lost_its_claim_leaves_no_file(batches, claims, files, held, tmp_path):
    claimed(claims, batches.get(held.id), "two")
    before = set((tmp_path / "files").glob("file-*"))

    with pytest.raises(FenceLost), result(files) as output:
        claims.finish(held, "expired", DONE, output, None, now=5.0)

    assert set((tmp_path / "files").glob("file-*")) == before
    with pytest.raises(FileNotFound):
        files.get(output.id)


def test_a_file_stays_while_a_batch_that_is_not_over_reads_it(batches, files):
    record = create(batches, files)

    with pytest.raises(JobConflict, match=record.id):
        files.delete(record.spec.input_file)

    batches.cancel(record.id, now=3.0)
    files.delete(record.spec.input_file)


def test_a_batch_without_a_server_is_cancelled_at_once(batches, files):
    ended = batches.cancel(create(batches, files).id, now=3.0)

    assert ended.state == "cancelled"
    assert ended.reached_at == {"cancelling": 3.0, "cancelled": 3.0}
    assert batches.cancel(ended.id, now=4.0) == ended


def test_a_running_batch_is_told_to_stop_and_ends_when_its_server_has(batches, claims, files, held):
    assert batches.cancel(held.id, now=4.0).state == "cancelling"
    assert claims.report(held.claim) == "cancelling"
    with pytest.raises(JobConflict):
        claims.finalize(held, now=4.5)

    ended = claims.finish(held, "cancelled", DONE, None, None, now=5.0)

    assert ended.state == "cancelled"
    assert batches.counts()["cancelled"] == 1


def test_what_is_answered_is_not_cancelled_any_more(batches, claims, held):
    claims.finalize(held, now=4.0)
    with pytest.raises(JobConflict, match="finalizing"):
        batches.cancel(held.id, now=4.5)


def test_a_failed_batch_says_why(batches, claims, files):
    held = claimed(claims, create(batches, files))

    claims.fail(held, [FAULT], now=4.0)

    ended = batches.get(held.id)
    assert (ended.state, ended.faults) == ("failed", (FAULT,))
    assert claims.claim(ended, "two") is None


def test_open_batches_are_those_of_the_base_the_oldest_first(batches, claims, files):
    old, new = (create(batches, files, now=now) for now in (1.0, 2.0))
    create(batches, files, base_name="other")
    over = create(batches, files, now=1.5)
    batches.cancel(over.id, now=3.0)

    assert [one.id for one in claims.open(BASE)] == [old.id, new.id]


def test_open_batches_are_all_of_them_however_many_there_are(batches, claims, files, client):
    oldest = create(batches, files, now=1.0)
    record = client.hgetall(keys.batch(oldest.id))
    with client.pipeline(transaction=False) as pipe:
        for i in range(MAX_PAGE):
            id_ = f"batch_{i:024x}"
            pipe.hset(keys.batch(id_), mapping=record)
            pipe.zadd(keys.BATCHES_OPEN + BASE, {id_: 2.0 + i})
        pipe.execute()

    found = claims.open(BASE)

    assert found[0] == oldest
    assert len(found) == MAX_PAGE + 1


@pytest.mark.parametrize("state", ["finalizing", "cancelling"])
def test_a_batch_fails_or_expires_also_at_its_end(batches, claims, files, state):
    for to in ("failed", "expired"):
        held = claims.begin(claimed(claims, create(batches, files)), now=3.0)
        if state == "finalizing":
            claims.finalize(held, now=4.0)
        else:
            batches.cancel(held.id, now=4.0)

        if to == "failed":
            ended = claims.fail(held, [FAULT], now=5.0)
        else:
            ended = claims.finish(held, "expired", DONE, None, None, now=5.0)

        assert (ended.state, ended.owner) == (to, "")


def test_every_state_but_the_first_can_be_reached():
    assert {state for state in STATES if not FROM[state]} == {"validating"}


def test_a_damaged_record_is_named(batches, files, client):
    record = create(batches, files)
    client.hset(keys.batch(record.id), "state", "asleep")

    with pytest.raises(CorruptRecord, match=record.id):
        batches.get(record.id)
