"""A job's history is stored once, read from both ends, and deleted some time after its end."""

import json

import pytest

from jobs_made import claim, fence_of
from registry.errors import CorruptRecord, InvalidArgument
from registry.jobs import log as job_log
from registry.jobs.samples import MAX_SAMPLES, Sample, Samples, samples_entry
from registry.redis import keys


def test_reports_are_taken_once(jobs, claims, running):
    held = running()
    fence = fence_of(held)
    news = [
        job_log.event_entry("warn", "two lines were cut", {"lines": 2}, 4.5),
        job_log.progress_entry(3, 10, 7.5),
        job_log.metrics_entry(3, {"train_loss": 2.5, "tokens": 900.0}, 4.0),
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
            job_log.metrics_entry(step, {"loss": float(step)}, float(step)),
            job_log.progress_entry(step, 9, None),
        ]
        claims.report(fence_of(held), step, entries)
    claims.take_back(jobs.get(held.id), now=4)
    held = claim(claims)
    for number, step in enumerate((2, 3, 4), 1):
        entries = [
            job_log.metrics_entry(step, {"loss": -1.0}, 6.0),
            job_log.progress_entry(step, 9, None),
        ]
        claims.report(fence_of(held), number, entries)
    claims.report(fence_of(held), 9, [job_log.metrics_entry(4, {"eval_loss": 0.5}, 7.0)])

    points = jobs.metrics(held.id, 100)
    assert [(p.step, p.values) for p in points] == [
        (1, {"loss": 1.0}),
        (2, {"loss": 2.0}),
        (3, {"loss": 3.0}),
        (4, {"loss": -1.0}),
        (4, {"eval_loss": 0.5}),
    ]
    assert [point.created_at for point in points] == [1.0, 2.0, 3.0, 6.0, 7.0]
    assert jobs.metrics(held.id, 100, after=points[2].id) == points[3:]
    assert jobs.totals()["steps"] == 4


def test_numbers_that_json_has_no_word_for_are_left_out(jobs, claims, running):
    held = running()
    entries = [job_log.metrics_entry(0, {"loss": float("nan"), "rate": 1.0}, 4.0)]
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


def test_a_checkpoints_samples_are_kept_once_and_cut(jobs, claims, running):
    held = running()
    long, odd = "p" * 500 + "end", "lone \ud800, 'quoted', ☃"
    given = Samples(
        5, "validation_file", (Sample(long, odd, "a" * 500, "length"), Sample("q", "e", "", "stop"))
    )
    claims.report(
        fence_of(held),
        1,
        [samples_entry(given), samples_entry(Samples(9, "training_file", (), "time"))],
    )
    later = Samples(5, "validation_file", (Sample("other", "e", "a", "stop"),))
    claims.report(fence_of(held), 2, [samples_entry(later)])  # of an attempt that repeats a step

    found = jobs.samples(held.id)
    assert sorted(found) == [5, 9]
    first, second = found[5].samples
    assert (first.prompt, first.answer) == ("…" + long[-399:], "a" * 399 + "…")
    assert (first.expected, first.finish_reason) == ("lone ?, 'quoted', ☃", "length")
    assert second == Sample("q", "e", "", "stop")
    assert (found[9].samples, found[9].left_out, found[9].source) == ((), "time", "training_file")


def test_the_samples_of_the_latest_checkpoints_are_kept(jobs, claims, running):
    held = running()
    many = (Sample("p" * 999, "e" * 999, "a" * 999, "stop"),) * 9
    entries = [samples_entry(Samples(step, "training_file", many)) for step in range(1, 251)]
    claims.report(fence_of(held), 1, entries)

    found = jobs.samples(held.id)
    assert sorted(found) == list(range(151, 251))
    assert len(found[250].samples) == MAX_SAMPLES
    stored = sum(
        len(entry[1][b"samples"]) for entry in jobs._client.xrange(keys.job_samples(held.id))
    )
    assert stored < 2 << 20


def test_samples_that_are_none_are_a_corrupt_record(client, jobs, running):
    held = running()
    client.xadd(keys.job_samples(held.id), {"samples": "{}"}, id="3-1")
    with pytest.raises(CorruptRecord, match="samples"):
        jobs.samples(held.id)


def test_what_an_ended_job_said_goes_after_a_while(client, jobs, claims, running):
    held = running()
    claims.report(fence_of(held), 1, [samples_entry(Samples(1, "training_file", (), "time"))])
    jobs.cancel(held.id, now=4)

    for key in (keys.job_events(held.id), keys.job_samples(held.id)):
        assert 0 < client.ttl(key) <= keys.KEPT_LOG_S
    assert client.ttl(keys.job(held.id)) == -1
