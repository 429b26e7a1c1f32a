"""A job's history is stored once, read from both ends, and deleted some time after its end."""

import json

import pytest

from jobs_made import claim, fence_of
from registry.errors import (
    InvalidArgument,
)
from registry.jobs import log as job_log
from registry.redis import keys


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


def test_what_an_ended_job_said_goes_after_a_while(client, jobs, running):
    held = running()
    jobs.cancel(held.id, now=4)

    assert 0 < client.ttl(keys.job_events(held.id)) <= keys.KEPT_LOG_S
    assert client.ttl(keys.job(held.id)) == -1
