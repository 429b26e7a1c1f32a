"""A job is in one state, in one pair of hands, and ends once."""

import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs_made import BASE, claim, fence_of, files_in, run, spec_for, upload
from registry import job_log, keys
from registry.claims import MAX_ATTEMPTS, MAX_FAILURES, Claims
from registry.errors import (
    CorruptRecord,
    FenceLost,
    FileNotFound,
    InvalidArgument,
    InvalidName,
    JobConflict,
    JobNotFound,
    RegistryUnavailable,
)
from registry.job_folders import JobFolders
from registry.job_record import FROM, STATES, Fence, JobError, JobRecord
from registry.jobs import Jobs

FAULT = JobError("out_of_memory", "no memory left", "batch_size")


@pytest.fixture
def jobs(client):
    return Jobs(client)


@pytest.fixture
def claims(client):
    return Claims(client)


@pytest.fixture
def files(client, tmp_path):
    return files_in(client, tmp_path)


@pytest.fixture
def create(jobs, files):
    def create(now=2.0, **changes):
        return jobs.create(spec_for(upload(files), **changes), now=now)

    return create


@pytest.fixture
def queued(jobs, create):
    return lambda **changes: jobs.queue(create(**changes).id, now=2.5)


@pytest.fixture
def running(claims, queued):
    def running(**changes):
        queued(**changes)
        return run(claims)

    return running


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


def publish(adapters, describe, held, number=1, name="poet", **named):
    return adapters.publish(
        describe(number),
        name,
        created_by=held.id,
        metadata={},
        metrics={},
        now=8.0,
        fence=fence_of(held),
        **named,
    )


def test_creating_twice_gives_the_job_that_is_there(jobs, files):
    spec = spec_for(upload(files))

    assert jobs.create(spec, now=1.0) == jobs.create(spec, now=5.0)
    assert len(jobs.events(spec.id, 10)) == 1


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"training_file": "file-" + "0" * 24}, FileNotFound),
        ({"validation_file": "file-" + "0" * 24}, FileNotFound),
        ({"name": "a/b"}, InvalidName),
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
    if after == "running" and before == "validating_files":  # nobody's claim
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


def test_two_workers_never_have_the_same_job(jobs, claims, queued):
    ids = [queued().id for _ in range(20)]
    with ThreadPoolExecutor(4) as pool:
        tries = [pool.submit(claims.claim, id_, str(w), now=1) for id_ in ids for w in range(4)]
        winners = [each.result() for each in tries if each.result()]

    assert sorted(record.id for record in winners) == sorted(ids)


def test_jobs_are_taken_in_order_and_only_by_workers_of_their_base(claims, queued):
    first, second = queued(), queued()
    other = queued(base_name="other")

    assert [claim(claims).id, claim(claims).id] == [first.id, second.id]
    assert claims.take(BASE, "one", 0, now=1) is None
    assert claims.take("other", "one", 1, now=1).id == other.id


def test_a_later_claim_shuts_the_earlier_one_out(jobs, claims, running, adapters, describe):
    old = running()
    assert claims.take_back(jobs.get(old.id), now=4).state == "queued"
    new = claim(claims, "two")
    assert (new.fence, new.attempts, new.failures, new.worker) == (2, 2, 1, "two")

    with pytest.raises(FenceLost):
        publish(adapters, describe, old)
    with pytest.raises(FenceLost):
        claims.finish(fence_of(old), {}, now=5)
    with pytest.raises(FenceLost):
        claims.fail(fence_of(old), FAULT, now=5)
    with pytest.raises(FenceLost):
        claims.give_back(fence_of(old), "bye", now=5)
    assert claims.report(fence_of(old), 1, [job_log.metrics_entry(1, {"loss": 1.0})]) is None
    assert claims.beat(fence_of(old)) is None
    assert jobs.metrics(old.id, 10) == []
    assert adapters.list(10) == []
    assert jobs.get(old.id) == new


@pytest.mark.parametrize("state", ["queued", "paused", "cancelled"])
def test_what_does_not_run_cannot_publish(jobs, claims, running, adapters, describe, state):
    held = running()
    {
        "queued": lambda: claims.give_back(fence_of(held), "bye", now=4),
        "paused": lambda: jobs.pause(held.id, now=4),
        "cancelled": lambda: jobs.cancel(held.id, now=4),
    }[state]()

    with pytest.raises(FenceLost, match=state):
        publish(adapters, describe, held)

    assert adapters.list(10) == []


def test_a_job_publishes_once_whatever_it_comes_with_again(
    jobs, claims, running, adapters, describe
):
    first = running()
    record, created = publish(adapters, describe, first)
    claims.take_back(jobs.get(first.id), now=4)
    second = claim(claims)
    assert second.result.reference == "poet@1"

    again, created_again = publish(adapters, describe, second, number=2, alias="prod")

    assert (created, created_again) == (True, False)
    assert again == record == adapters.resolve("poet@prod")
    assert len(adapters.versions("poet")) == 1


def test_a_published_job_cannot_be_cancelled(jobs, running, adapters, describe):
    held = running()
    publish(adapters, describe, held)

    with pytest.raises(JobConflict, match="published"):
        jobs.cancel(held.id, now=4)

    assert jobs.get(held.id).state == "running"


def test_a_holder_who_beat_meanwhile_keeps_the_job(jobs, claims, running):
    held = running()
    assert claims.beat(fence_of(held)) == "running"

    assert claims.take_back(held, now=4) is None
    assert jobs.get(held.id).state == "running"


def test_a_job_that_fails_again_and_again_is_given_up(jobs, claims, running):
    held = running()
    for attempt in range(1, MAX_FAILURES):
        assert claims.failed_attempt(fence_of(held), FAULT, now=4).state == "queued"
        assert jobs.get(held.id).failures == attempt
        held = claim(claims)
    end = claims.failed_attempt(fence_of(held), FAULT, now=5)

    assert (end.state, end.error, end.attempts) == ("failed", FAULT, MAX_FAILURES)


def test_a_lost_worker_counts_as_a_failure(jobs, claims, running):
    held = running()
    for _ in range(MAX_FAILURES - 1):
        assert claims.take_back(jobs.get(held.id), now=4).state == "queued"
        held = claim(claims)
    end = claims.take_back(jobs.get(held.id), now=5)

    assert (end.state, end.error.code) == ("failed", "worker_lost")


def test_a_checkpoint_forgives_the_failures_before_it(jobs, claims, running):
    held = running()
    for number in range(1, 2 * MAX_FAILURES):
        claims.report(fence_of(held), 1, [job_log.checkpoint_entry(number, f"step-{number}", 4.0)])
        assert claims.failed_attempt(fence_of(held), FAULT, now=4).state == "queued"
        held = claim(claims)
    assert [point.step for point in jobs.checkpoints(held.id)] == list(range(1, 2 * MAX_FAILURES))


def test_no_job_is_claimed_for_ever(client, claims, running):
    held = running()
    client.hset(keys.job(held.id), "attempts", MAX_ATTEMPTS)

    assert claims.failed_attempt(fence_of(held), FAULT, now=4).state == "failed"


def test_what_is_given_back_is_no_failure_and_comes_first(claims, running, queued):
    held = running()
    queued()

    assert claims.give_back(fence_of(held), "the worker stops", now=4).failures == 0
    assert claim(claims).id == held.id


def test_pause_holds_a_job_until_it_is_resumed(jobs, claims, running):
    held = running()
    jobs.pause(held.id, now=4)
    assert claims.beat(fence_of(held)) == "paused"
    assert claims.take(BASE, "two", 0, now=4) is None
    assert claims.mend(BASE, now=4) == 0

    assert jobs.resume(held.id, now=5).state == "queued"
    assert claims.beat(fence_of(held)) is None
    assert claim(claims).id == held.id


def test_cancelled_and_paused_jobs_leave_the_line(jobs, claims, queued):
    jobs.cancel(queued().id, now=3)
    jobs.pause(queued().id, now=3)
    last = queued()

    assert claim(claims).id == last.id


def test_a_job_lost_between_its_record_and_its_line_is_put_in_line(client, jobs, claims, queued):
    ids = [queued(now=float(i)).id for i in range(3)]
    client.delete(f"rq:queue:overtone:{BASE}")

    assert claims.mend(BASE, now=3) == 3
    assert claims.mend(BASE, now=3) == 0
    assert [claim(claims).id for _ in ids] == ids


def test_a_job_that_nobody_checked_is_left_to_its_worker(jobs, claims, create):
    made = create()
    assert claims.mend(BASE, now=3) == 0

    assert claims.mend(BASE, now=100) == 1
    assert jobs.get(made.id).state == "queued"


def test_a_claimed_job_is_not_taken_for_one_that_nobody_checked(jobs, claims, queued):
    made = queued()
    held = claim(claims)

    assert claims.mend(BASE, now=100) == 0
    with pytest.raises(JobConflict):  # by a server that believes it to be new
        jobs.queue(made.id, now=100)
    assert jobs.get(made.id) == held
    assert claims.held(BASE) == [held]


def test_what_is_wrong_with_a_job_is_found_in_validating_files(jobs, claims, queued):
    queued()
    held = claim(claims)

    assert claims.fail(fence_of(held), FAULT, now=4).state == "failed"
    last = jobs.last_events(held.id, 1)[0]
    assert (last.data, last.message) == (
        {"from": "validating_files", "to": "failed"},
        FAULT.message,
    )


@pytest.mark.parametrize("leave", ["give_back", "take_back", "failed_attempt", "pause"])
def test_a_job_whose_files_were_being_validated_is_validated_again(jobs, claims, queued, leave):
    queued()
    held = claim(claims)
    fence = fence_of(held)
    {
        "give_back": lambda: claims.give_back(fence, "bye", now=4),
        "take_back": lambda: claims.take_back(held, now=4),
        "failed_attempt": lambda: claims.failed_attempt(fence, FAULT, now=4),
        "pause": lambda: (jobs.pause(held.id, now=4), jobs.resume(held.id, now=4)),
    }[leave]()

    again = claim(claims, "two")
    assert (again.state, again.fence) == ("validating_files", 2)
    with pytest.raises(FenceLost):
        claims.validated(fence, now=5)
    assert claims.validated(fence_of(again), now=5).state == "running"


def test_an_id_that_stands_in_line_twice_does_no_harm(client, claims, queued):
    made = queued()
    client.rpush(f"rq:queue:overtone:{BASE}", made.id)

    assert claim(claims).id == made.id
    assert claims.take(BASE, "two", 0, now=4) is None


def test_reports_are_taken_once(jobs, claims, running):
    held = running()
    fence = fence_of(held)
    news = [
        job_log.event_entry("warn", "two lines were cut", {"lines": 2}, 4.5),
        job_log.progress_entry(3, 10, 7.5),
        job_log.metrics_entry(3, {"train_loss": 2.5, "tokens": 900.0}),
        job_log.checkpoint_entry(3, "step-3", 4.5),
    ]
    before = len(jobs.events(held.id, 100))

    assert claims.report(fence, 1, news) == "running"
    assert claims.report(fence, 1, news) == "running"  # its answer was lost

    found = jobs.get(held.id)
    assert (found.progress.step, found.progress.num_steps) == (3, 10)
    assert (found.progress.seconds_left, found.trained_tokens) == (7.5, 900)
    (event,) = jobs.events(held.id, 100)[before:]
    assert (event.level, event.message, event.data) == ("warn", "two lines were cut", {"lines": 2})
    assert [(p.step, p.values) for p in jobs.metrics(held.id, 10)] == [
        (3, {"train_loss": 2.5, "tokens": 900.0})
    ]
    assert [(p.step, p.name) for p in jobs.checkpoints(held.id)] == [(3, "step-3")]
    assert jobs.totals() == {"steps": 3.0, "tokens": 900.0, "loss": 2.5}


def test_a_resumed_attempt_repeats_nothing(jobs, claims, running):
    held = running()
    for step in (1, 2, 3):
        entries = [
            job_log.metrics_entry(step, {"loss": float(step)}),
            job_log.progress_entry(step, 9, None),
        ]
        claims.report(fence_of(held), step, entries)
    claims.take_back(jobs.get(held.id), now=4)
    held = claim(claims)
    for number, step in enumerate((2, 3, 4), 1):
        entries = [
            job_log.metrics_entry(step, {"loss": -1.0}),
            job_log.progress_entry(step, 9, None),
        ]
        claims.report(fence_of(held), number, entries)
    claims.report(fence_of(held), 9, [job_log.metrics_entry(4, {"eval_loss": 0.5})])

    points = jobs.metrics(held.id, 100)
    assert [(p.step, p.values) for p in points] == [
        (1, {"loss": 1.0}),
        (2, {"loss": 2.0}),
        (3, {"loss": 3.0}),
        (4, {"loss": -1.0}),
        (4, {"eval_loss": 0.5}),
    ]
    assert jobs.metrics(held.id, 100, after=points[2].id) == points[3:]
    assert jobs.totals()["steps"] == 4


def test_numbers_that_json_has_no_word_for_are_left_out(jobs, claims, running):
    held = running()
    entries = [job_log.metrics_entry(0, {"loss": float("nan"), "rate": 1.0})]
    claims.report(fence_of(held), 1, entries)

    assert [point.values for point in jobs.metrics(held.id, 10)] == [{"rate": 1.0}]


def test_events_are_read_from_both_ends_and_stay_bounded(jobs, claims, running):
    held = running()
    entries = [job_log.event_entry("info", f"line {i}", None, 4.0) for i in range(50)]
    claims.report(fence_of(held), 1, entries)
    every = jobs.events(held.id, 1000)

    assert jobs.events(held.id, 10, after=every[5].id) == every[6:16]
    assert jobs.last_events(held.id, 10) == every[:-11:-1]
    assert jobs.last_events(held.id, 10, before=every[5].id) == every[4::-1]
    flood = [job_log.event_entry("info", "x", None, 4.0)] * 2000
    for number in range(2, 7):
        claims.report(fence_of(held), number, flood)
    assert len(job_log.event_entry("info", "x" * 9000, None, 4.0)[1][2]) == 4000
    assert json.loads(job_log.event_entry("?", "x", {"a": "y" * 99_999}, 4.0)[1][4])["left_out"]
    assert len(list(jobs.events(held.id, 1000))) == 1000
    assert keys.MAX_EVENTS <= jobs._client.xlen(keys.job_events(held.id)) < keys.MAX_EVENTS + 200


@pytest.mark.parametrize("bad", ["x", "1", "1-", "-1-2", "1-2-3", "1" * 50 + "-1"])
def test_a_place_that_is_none_is_refused(jobs, create, bad):
    made = create()
    for read in (jobs.events, jobs.metrics, jobs.checkpoints):
        with pytest.raises(InvalidArgument):
            read(made.id, 10, after=bad)


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


def test_what_an_ended_job_said_goes_after_a_while(client, jobs, running):
    held = running()
    jobs.cancel(held.id, now=4)

    assert 0 < client.ttl(keys.job_events(held.id)) <= keys.KEPT_LOG_S
    assert client.ttl(keys.job(held.id)) == -1


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


def test_a_registry_that_is_down_says_so_and_is_asked_again(plain_server):
    from registry.client import open_client

    with open_client(plain_server.url) as client:
        claims = Claims(client)
        plain_server.kill()
        for ask in (
            lambda: claims.take(BASE, "one", 1, now=1),
            lambda: claims.beat(Fence("ftjob-" + "0" * 24, 1)),
            lambda: claims.mend(BASE, now=1),
            lambda: claims.held(BASE),
        ):
            with pytest.raises(RegistryUnavailable):
                ask()
        plain_server.start()
        assert claims.take(BASE, "one", 0, now=1) is None


def test_a_waiting_worker_wakes_at_once(claims, jobs, create, until):
    made = create()
    taken = []
    waiting = threading.Thread(target=lambda: taken.append(claims.take(BASE, "one", 1, now=1)))
    waiting.start()
    jobs.queue(made.id, now=1)
    waiting.join(10)

    assert [record.id for record in taken] == [made.id]


def test_a_claim_takes_its_predecessors_folder_along(tmp_path):
    folders, job = JobFolders(tmp_path), "ftjob-" + "a" * 24
    assert folders.newest(job) is None
    old = folders.take(Fence(job, 2))
    (old / "step-5").write_text("state")
    assert folders.take(Fence(job, 2)) == old

    new = folders.take(Fence(job, 5))

    assert (new / "step-5").read_text() == "state"
    assert folders.newest(job) == new
    with pytest.raises(FileNotFoundError):
        (old / "step-6").write_text("a zombie's")
    with pytest.raises(FenceLost):
        folders.take(Fence(job, 2))
    folders.remove(job)
    folders.remove(job)
    assert folders.newest(job) is None


def test_of_many_claims_the_latest_has_the_folder(tmp_path):
    folders, job = JobFolders(tmp_path), "ftjob-" + "a" * 24
    (folders.take(Fence(job, 1)) / "state").write_text("x")

    def take(number):
        try:
            return folders.take(Fence(job, number))
        except FenceLost:
            return None

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(take, range(2, 30)))

    assert found[-1] == folders.newest(job)
    assert (found[-1] / "state").read_text() == "x"
