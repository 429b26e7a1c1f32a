"""One claim holds a job at a time: claimed, taken back, given back, published once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs_made import BASE, FAULT, claim, fence_of, publish
from registry.common.fence import Fence
from registry.errors import (
    FenceLost,
    JobConflict,
    RegistryUnavailable,
)
from registry.jobs import log as job_log
from registry.jobs.claims import MAX_ATTEMPTS, MAX_FAILURES, Claims
from registry.redis import keys


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
    assert claims.report(fence_of(old), 1, [job_log.metrics_entry(1, {"loss": 1.0}, 4.0)]) is None
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


def test_what_is_taken_back_from_a_lost_worker_comes_first(jobs, claims, running, queued):
    held = running()
    queued(), queued()

    claims.take_back(jobs.get(held.id), now=4)

    assert claim(claims).id == held.id


def test_a_job_lost_on_its_way_back_into_line_stands_where_it_was(client, claims, queued):
    ids = [queued(now=float(i)).id for i in range(4)]
    first = claim(claims)
    line = f"rq:queue:overtone:{BASE}"
    client.hset(keys.job(first.id), "state", "queued")  # and its worker died before the line
    client.zrem(keys.JOBS_IN_STATE + "validating_files", first.id)
    client.zadd(keys.JOBS_IN_STATE + "queued", {first.id: first.created_at})
    client.lrem(line, 0, ids[3])

    assert claims.mend(BASE, now=5) == 2
    assert client.lrange(line, 0, -1) == [id_.encode() for id_ in ids]


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


def test_any_number_of_jobs_is_put_in_line_again(client, claims, queued, create):
    """Also of the jobs behind those of another base."""
    ids = [queued(now=float(i)).id for i in range(1005)]
    others = [queued(now=2000.0 + i, base_name="another").id for i in range(5)]
    client.delete(f"rq:queue:overtone:{BASE}", "rq:queue:overtone:another")

    assert claims.mend(BASE, now=3000) == 1005
    assert claims.mend("another", now=3000) == 5
    assert client.lrange(f"rq:queue:overtone:{BASE}", 0, -1) == [id_.encode() for id_ in ids]
    assert client.lrange("rq:queue:overtone:another", 0, -1) == [id_.encode() for id_ in others]


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


def test_a_published_job_cannot_be_cancelled(jobs, running, adapters, describe):
    held = running()
    publish(adapters, describe, held)

    with pytest.raises(JobConflict, match="published"):
        jobs.cancel(held.id, now=4)

    assert jobs.get(held.id).state == "running"


def test_a_waiting_worker_wakes_at_once(claims, jobs, create):
    made = create()
    taken = []
    waiting = threading.Thread(target=lambda: taken.append(claims.take(BASE, "one", 1, now=1)))
    waiting.start()
    jobs.queue(made.id, now=1)
    waiting.join(10)

    assert [record.id for record in taken] == [made.id]


def test_a_registry_that_is_down_says_so_and_is_asked_again(plain_server):
    from registry.redis.client import open_client

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
