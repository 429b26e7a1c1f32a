"""A job is in one state, held by one claim at most, and ends once."""

import itertools
import json

import pytest

from jobs_made import FAULT, claim, fence_of, publish, spec_for, upload
from registry.common.fence import Fence
from registry.errors import (
    CorruptRecord,
    FileNotFound,
    InvalidArgument,
    InvalidName,
    JobConflict,
    JobNotFound,
)
from registry.jobs.record import FROM, STATES, JobRecord
from registry.redis import keys


def messages(jobs, id_):
    return [event.message for event in jobs.events(id_, 100)]


def test_a_jobs_way_from_its_creation_to_its_end(jobs, claims, create, adapters, describe):
    made = create(method_config={"n": 100}, metadata={"mine": "é"})
    assert (made.state, made.created_at, made.attempts) == ("validating_files", 2.0, 0)
    assert jobs.get(made.id) == made
    assert jobs.queue(made.id, now=2.5).state == "queued"

    held = claim(claims)
    assert (held.id, held.state, held.worker) == (made.id, "validating_files", "one")
    assert (held.started_at, held.spec, held.fence) == (3.0, made.spec, 1)
    assert claims.validated(fence_of(held), now=4.0).state == "running"
    record, _ = publish(adapters, describe, held)
    done = claims.finish(fence_of(held), {"eval_loss": 1.5}, now=9.0)

    assert (done.state, done.finished_at, done.is_final) == ("succeeded", 9.0, True)
    assert done.result.reference == record.reference == "poet@1"
    assert (done.result.digest, done.result.metrics) == (record.digest, {"eval_loss": 1.5})
    assert jobs.counts() == {**dict.fromkeys(STATES, 0), "succeeded": 1}
    assert messages(jobs, made.id)[-1] == "The job succeeded"
    moves = [event.data for event in jobs.events(made.id, 100) if event.data]
    assert [move["to"] for move in moves] == ["queued", "validating_files", "running", "succeeded"]
    assert [move["from"] for move in moves[1:]] == [move["to"] for move in moves[:-1]]


def test_creating_twice_gives_the_job_that_is_there(jobs, files):
    spec = spec_for(upload(files))

    assert jobs.create(spec, now=1.0) == jobs.create(spec, now=5.0)
    assert len(jobs.events(spec.id, 10)) == 1


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"training_file": "file-" + "0" * 24}, FileNotFound),
        ({"validation_file": "file-" + "0" * 24}, FileNotFound),
        ({"name": "a/b/c"}, InvalidName),
        ({"alias": "latest"}, InvalidName),
        ({"id": "ftjob-../../x"}, JobNotFound),
        ({"metadata": {"a": float("nan")}}, InvalidArgument),
        ({"metadata": {"a": "x" * 25_000}}, InvalidArgument),
        ({"method_config": {"a": json.loads("[" * 13 + "]" * 13)}}, InvalidArgument),
        ({"metadata": {"a": object()}}, InvalidArgument),
    ],
)
def test_a_bad_job_leaves_nothing(jobs, create, changes, error):
    with pytest.raises(error):
        create(**changes)

    assert jobs.list(10) == []
    assert sum(jobs.counts().values()) == 0


#: How to bring a job into each state, and what brings it to another. A job that is held while its
#: files are validated may go where a new one may, and on.
def in_state(state, jobs, claims, create):
    made = create()
    if state == "validating_files":
        return made
    jobs.queue(made.id, now=1)
    if state == "queued":
        return jobs.get(made.id)
    held = claim(claims)
    if state == "held":
        return held
    fence = fence_of(held)
    running = claims.validated(fence, now=1)
    ways = {
        "running": lambda: running,
        "paused": lambda: jobs.pause(made.id, now=1),
        "cancelled": lambda: jobs.cancel(made.id, now=1),
        "failed": lambda: claims.fail(fence, FAULT, now=1),
        "succeeded": lambda: claims.finish(fence, {}, now=1),
    }
    return ways[state]()


@pytest.mark.parametrize(("before", "after"), list(itertools.product([*STATES, "held"], STATES)))
def test_only_the_graphs_ways_are_open(jobs, claims, create, before, after):
    record = in_state(before, jobs, claims, create)
    assert record.is_held == (before in ("held", "running"))
    fence = Fence(record.id, max(1, record.fence))  # no claim has 0
    moves = {
        "validating_files": lambda: claims.claim(record.id, "two", now=2),
        "queued": lambda: jobs.resume(record.id, now=2),
        "running": lambda: claims.validated(fence, now=2),
        "paused": lambda: jobs.pause(record.id, now=2),
        "cancelled": lambda: jobs.cancel(record.id, now=2),
        "failed": lambda: jobs.refuse(record.id, FAULT, now=2),
        "succeeded": lambda: claims.finish(fence, {}, now=2),
    }
    state = record.state
    is_open = state in FROM[after] or (state == after and after != "validating_files")
    if after == "queued":  # other ways in are not resuming
        is_open = before in ("paused", "queued")
    if after == "running" and before == "validating_files":  # a claim that does not exist
        is_open = False
    if is_open:
        assert moves[after]().state == after
    elif after == "validating_files":
        assert moves[after]() is None
    else:
        with pytest.raises(JobConflict):
            moves[after]()
    expected = after if is_open else state
    found = jobs.get(record.id)
    assert found.state == expected
    assert [state for state, count in jobs.counts().items() if count] == [expected]
    assert (found.finished_at is not None) == found.is_final


def test_no_job_is_no_job_for_anybody(jobs, claims):
    nobody = "ftjob-" + "0" * 24
    for ask in (
        jobs.get,
        lambda id_: jobs.cancel(id_, now=1),
        lambda id_: claims.beat(Fence(id_, 1)),
    ):
        with pytest.raises(JobNotFound):
            ask(nobody)
    with pytest.raises(JobNotFound):
        jobs.get("../../etc/passwd")
    assert jobs.events(nobody, 10) == []


def test_jobs_are_listed_newest_first_page_by_page_and_by_tenant(jobs, create, files):
    mine = [jobs.create(spec_for(upload(files)), now=float(i)).id for i in range(5)]
    jobs.create(spec_for(upload(files), created_by="you"), now=9.0)

    assert len(jobs.list(100)) == 6
    assert [record.id for record in jobs.list(3, created_by="me")] == mine[:1:-1]
    page = jobs.list(3, after=mine[2], created_by="me")
    assert [record.id for record in page] == [mine[1], mine[0]]
    assert jobs.list(3, created_by="nobody") == []
    with pytest.raises(JobNotFound):
        jobs.list(3, after="ftjob-" + "0" * 24)
    with pytest.raises(InvalidArgument):
        jobs.list(0)


def test_rubbish_under_a_jobs_key_is_named(client, jobs):
    id_ = "ftjob-" + "a" * 24
    client.hset(keys.job(id_), mapping={"spec": "{}", "state": "odd", "created_at": "1"})

    with pytest.raises(CorruptRecord, match=id_):
        jobs.get(id_)


def test_records_of_a_later_program_are_read():
    spec = json.loads(spec_for("file-" + "0" * 24).to_json()) | {"new": 1}
    stored = {"spec": json.dumps(spec), "state": "queued", "created_at": "1.0", "newer": "2"}

    record = JobRecord.read("x", {k.encode(): v.encode() for k, v in stored.items()})

    assert record.state == "queued"
