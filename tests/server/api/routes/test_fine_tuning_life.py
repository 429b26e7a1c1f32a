"""Jobs over REST: what is told of a job's life, in lists, as a stream and as metrics."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from live import Live, error_of
from registry import JobError
from registry.jobs import log as job_log
from registry.jobs.samples import Sample, Samples, samples_entry
from server.api import event_stream, job_stream
from training_parts import JOBS, claimed, job_told, new_job, post_job, report, taken
from waiting import until

NOBODY = f"ftjob-{'0' * 24}"


@pytest.fixture(scope="module")
def server(serve_all: Callable[..., Live]) -> Live:
    return serve_all()


@pytest.fixture
def running(server: Live) -> Iterator[Any]:
    """A job that a worker, which is this test, has begun."""
    id_ = new_job(server)["id"]
    yield claimed(server, id_)
    server.http.post(f"{JOBS}/{id_}/cancel")


def test_jobs_are_listed_page_by_page_the_newest_first(server: Live) -> None:
    made = [new_job(server)["id"] for _ in range(3)]
    first = server.http.get(JOBS, params={"limit": 2}).json()
    assert [job["id"] for job in first["data"]] == made[:0:-1]
    assert first["has_more"]
    rest = server.http.get(JOBS, params={"limit": 1, "after": made[1]}).json()
    assert rest["data"][0]["id"] == made[0]
    assert server.http.get(JOBS, params={"metadata[a]": "b"}).status_code == 400
    for id_ in made:
        server.http.post(f"{JOBS}/{id_}/cancel")


def test_a_job_can_be_paused_resumed_and_cancelled(server: Live) -> None:
    id_ = new_job(server)["id"]
    for move, state in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        assert server.http.post(f"{JOBS}/{id_}/{move}").json()["status"] == state
    answer = server.http.post(f"{JOBS}/{id_}/resume")
    assert answer.status_code == 400
    assert "is cancelled; it cannot become queued" in error_of(answer)["message"]
    assert server.http.post(f"{JOBS}/{id_}/cancel").status_code == 200  # twice is harmless


@pytest.mark.parametrize("id_", [NOBODY, "ftjob-1", "x"])
def test_a_job_that_is_not_there_is_404_everywhere(server: Live, id_: str) -> None:
    for tail in ("", "/events", "/checkpoints", "/metrics", "/plot.png", "/events?stream=true"):
        assert server.http.get(f"{JOBS}/{id_}{tail}").status_code == 404
    for move in ("cancel", "pause", "resume"):
        assert server.http.post(f"{JOBS}/{id_}/{move}").status_code == 404


def test_what_one_tenant_trains_no_other_sees(serve: Callable[..., Live]) -> None:
    server = serve(tenant_header="X-Tenant")
    mine, theirs = {"X-Tenant": "a"}, {"X-Tenant": "b"}
    id_ = post_job(server, headers=mine).json()["id"]
    assert server.http.get(JOBS, headers=theirs).json()["data"] == []
    assert [job["id"] for job in server.http.get(JOBS, headers=mine).json()["data"]] == [id_]
    for tail in ("", "/events", "/checkpoints", "/metrics", "/plot.png"):
        assert server.http.get(f"{JOBS}/{id_}{tail}", headers=theirs).status_code == 404
        assert server.http.get(f"{JOBS}/{id_}{tail}", headers=mine).status_code == 200
    assert server.http.post(f"{JOBS}/{id_}/cancel", headers=theirs).status_code == 404
    assert server.http.get(JOBS, params={"after": id_}, headers=theirs).status_code == 404


def test_progress_and_the_time_left_are_shown_while_it_runs(server: Live, running: Any) -> None:
    record, fence = running
    tokens = job_log.metrics_entry(5, {"tokens": 400}, 4.0)
    report(server, fence, 1, job_log.progress_entry(5, 20, 30.0), tokens)
    job = job_told(server, record.id)
    assert job["status"] == "running"
    assert job["overtone"]["progress"] == {
        "step": 5,
        "num_steps": 20,
        "seconds_left": 30.0,
        "trained_tokens": 400,
    }
    assert job["estimated_finish"] == pytest.approx(time.time() + 30, abs=5)
    assert (job["overtone"]["worker"], job["trained_tokens"]) == ("by hand", None)


def test_a_job_whose_files_are_being_validated_says_so(server: Live) -> None:
    id_ = new_job(server)["id"]
    taken(server, id_)
    assert job_told(server, id_)["status"] == "validating_files"
    assert server.metric('overtone_jobs{state="validating_files"}') == 1
    assert server.http.post(f"{JOBS}/{id_}/pause").json()["status"] == "paused"
    assert server.http.post(f"{JOBS}/{id_}/resume").json()["status"] == "queued"
    _, fence = taken(server, id_)
    fault = JobError("invalid_training_file", "line 7: is too long", "training_file")
    server.service.registry.claims.fail(fence, fault, now=time.time())
    assert job_told(server, id_)["error"]["message"] == fault.message
    last = job_told(server, id_, "/events")["data"][0]
    assert last["data"] == {"from": "validating_files", "to": "failed"}


def test_events_are_listed_the_newest_first_page_by_page(server: Live, running: Any) -> None:
    record, fence = running
    entries = [job_log.event_entry("info", f"number {n}", {"n": n}, 5.0) for n in range(5)]
    report(server, fence, 1, *entries)
    page = job_told(server, record.id, "/events", limit=3)
    assert [event["message"] for event in page["data"]] == ["number 4", "number 3", "number 2"]
    assert page["has_more"]
    event = page["data"][-1]
    assert (event["object"], event["type"], event["data"]) == (
        "fine_tuning.job.event",
        "message",
        {"n": 2},
    )
    rest = job_told(server, record.id, "/events", limit=1000, after=event["id"])
    assert [event["message"] for event in rest["data"][:2]] == ["number 1", "number 0"]
    assert not rest["has_more"]
    for query in ({"after": "nonsense"}, {"after": "nonsense", "stream": "true"}):
        wrong = server.http.get(f"{JOBS}/{record.id}/events", params=query)
        assert wrong.status_code == 400
    endless = {"after_step": 10**30, "stream": "true"}
    wrong = server.http.get(f"{JOBS}/{record.id}/events", params=endless)
    assert error_of(wrong)["param"] == "after_step"


def test_checkpoints_are_listed_the_newest_first(server: Live, running: Any) -> None:
    record, fence = running
    report(server, fence, 1, *(job_log.checkpoint_entry(n, f"step-{n}", 9.0) for n in (5, 10, 15)))
    page = job_told(server, record.id, "/checkpoints", limit=2)
    assert [one["step_number"] for one in page["data"]] == [15, 10]
    assert page["has_more"]
    assert page["data"][0]["object"] == "fine_tuning.job.checkpoint"
    assert page["data"][0]["fine_tuning_job_id"] == record.id
    rest = job_told(server, record.id, "/checkpoints", after=page["data"][-1]["id"])
    assert [one["step_number"] for one in rest["data"]] == [5]
    wrong = server.http.get(f"{JOBS}/{record.id}/checkpoints", params={"after": "x"})
    assert wrong.status_code == 400


def test_a_checkpoint_has_what_its_adapter_answered(server: Live, running: Any) -> None:
    record, fence = running
    marks = [job_log.checkpoint_entry(n, f"step-{n}", 9.0) for n in (5, 10, 15)]
    made = Samples(5, "validation_file", (Sample("2+2=", "4", "5", "stop"),))
    none = Samples(10, "training_file", (), "time")
    report(server, fence, 1, *marks, samples_entry(made), samples_entry(none))
    newest, middle, oldest = (
        one["overtone"] for one in job_told(server, record.id, "/checkpoints")["data"]
    )
    assert newest == {"samples": [], "samples_source": None, "samples_left_out": "not_made"}
    assert (middle["samples"], middle["samples_left_out"]) == ([], "time")
    sample = {"prompt": "2+2=", "expected": "4", "answer": "5", "finish_reason": "stop"}
    assert oldest["samples"] == [sample]
    assert (oldest["samples_source"], oldest["samples_left_out"]) == ("validation_file", None)


def test_how_many_samples_are_made_is_the_jobs_to_say(server: Live) -> None:
    def hyper(count: Any) -> dict[str, Any]:
        values = {"checkpoint_samples": count}
        return {"method": {"type": "supervised", "supervised": {"hyperparameters": values}}}

    for wrong in (5, -1, 1.5, True):
        answer = post_job(server, **hyper(wrong))
        assert answer.status_code == 400
        assert error_of(answer)["param"] == "method.supervised.hyperparameters.checkpoint_samples"
    usual, none = new_job(server), new_job(server, **hyper(0))
    for made, count in ((usual, 2), (none, 0)):
        found = made["method"]["supervised"]["hyperparameters"]["checkpoint_samples"]
        assert found == count
        server.http.post(f"{JOBS}/{usual['id']}/cancel")
    _, fence = claimed(server, none["id"])
    report(server, fence, 1, job_log.checkpoint_entry(5, "step-5", 9.0))
    (one,) = job_told(server, none["id"], "/checkpoints")["data"]
    assert one["overtone"]["samples_left_out"] == "off"
    server.http.post(f"{JOBS}/{none['id']}/cancel")


@pytest.mark.parametrize("what", ["files", "jobs", "events", "metrics", "checkpoints"])
def test_a_page_that_is_just_full_is_not_said_to_have_more(
    server: Live, running: Any, what: str
) -> None:
    record, fence = running
    server.http.post(f"{JOBS}/{new_job(server)['id']}/cancel")
    steps = range(1, 4)
    points = [job_log.metrics_entry(step, {"train_loss": 1.0}, 4.0) for step in steps]
    marks = [job_log.checkpoint_entry(step, f"step-{step}", 1.0) for step in steps]
    report(server, fence, 1, *points, *marks)
    paths = {"files": "/v1/files", "jobs": JOBS}
    path = paths.get(what, f"{JOBS}/{record.id}/{what}")

    def page(limit: int) -> Any:
        return server.http.get(path, params={"limit": limit}).json()

    every = page(1000)["data"]
    assert len(every) >= 2
    for limit in (len(every), len(every) - 1):
        found = page(limit)
        assert found["data"] == every[:limit]
        assert found["has_more"] == (limit < len(every))
        assert found["last_id"] == every[limit - 1]["id"]


def test_the_curve_comes_as_numbers_and_as_a_picture(server: Live, running: Any) -> None:
    record, fence = running
    path = f"{JOBS}/{record.id}/plot.png"
    empty = server.http.get(path)
    assert empty.content.startswith(b"\x89PNG\r\n\x1a\n")
    points = [job_log.metrics_entry(n, {"train_loss": 4.0 / n}, 4.0) for n in range(1, 2001)]
    report(server, fence, 1, *points)
    page = job_told(server, record.id, "/metrics", limit=2)
    assert [(point["step"], point["train_loss"]) for point in page["data"]] == [(1, 4.0), (2, 2.0)]
    rest = job_told(server, record.id, "/metrics", limit=1, after=page["last_id"])
    assert rest["data"][0]["step"] == 3
    drawn = server.http.get(path)
    assert drawn.headers["content-type"] == "image/png"
    assert drawn.content not in (empty.content, b"")
    assert server.http.get(path).content == drawn.content


def test_a_job_that_published_names_its_version(server: Live, running: Any) -> None:
    record, fence = running
    claims = server.service.registry.claims
    claims.fail(fence, JobError("loss_not_finite", "NaN at step 3", "x"), now=time.time())
    job = job_told(server, record.id)
    assert (job["status"], job["fine_tuned_model"]) == ("failed", None)
    assert job["error"] == {"code": "loss_not_finite", "message": "NaN at step 3", "param": "x"}
    assert job["finished_at"] >= job["created_at"]


def told(server: Live, id_: str, **query: Any) -> list[dict[str, Any] | str]:
    """Read a job's stream to its end."""
    found: list[dict[str, Any] | str] = []
    params = {"stream": "true", **query}
    with server.http.stream("GET", f"{JOBS}/{id_}/events", params=params) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                data = line.removeprefix("data: ")
                found.append(data if data == "[DONE]" else json.loads(data))
    return found


def test_a_stream_tells_all_as_it_comes_and_ends_with_the_job(server: Live, running: Any) -> None:
    record, fence = running
    report(server, fence, 1, job_log.event_entry("info", "before", None, 5.0))
    heard: list[Any] = []
    listener = threading.Thread(target=lambda: heard.extend(told(server, record.id)))
    listener.start()
    step = job_log.metrics_entry(1, {"train_loss": 2.5}, 4.0)
    report(server, fence, 2, job_log.progress_entry(1, 4, 9.0), step)
    until(lambda: job_told(server, record.id)["overtone"]["progress"]["step"] == 1)
    server.http.post(f"{JOBS}/{record.id}/cancel")
    listener.join(20)
    assert not listener.is_alive()
    assert heard[-1] == "[DONE]"
    messages = [event["message"] for event in heard[:-1] if event["type"] == "message"]
    assert messages[0] == "The job was created"
    assert "before" in messages
    assert messages[-1] == heard[-2]["message"] == "The job was cancelled"
    (numbers,) = [event for event in heard[:-1] if event["type"] == "metrics"]
    assert numbers["data"] == {"step": 1, "num_steps": 4, "seconds_left": 9.0, "train_loss": 2.5}


@pytest.mark.parametrize("count", [3, 2500])
def test_an_ended_job_is_told_in_the_order_of_time(server: Live, running: Any, count: int) -> None:
    record, fence = running
    now = time.time()
    points = [job_log.metrics_entry(n, {"train_loss": 1.0}, now + n) for n in range(1, count + 1)]
    late = [job_log.event_entry("info", text, None, now + count + 9) for text in ("one", "two")]
    report(server, fence, 1, job_log.event_entry("info", "amid", None, now + 2.5), *late, *points)
    claims = server.service.registry.claims
    claims.fail(fence, JobError("loss_not_finite", "NaN", "x"), now=now + count + 10)
    whole: list[Any] = told(server, record.id)[:-1]
    texts = [e["data"].get("step", e["message"]) for e in whole]
    after = texts.index(1)
    assert texts[after:-1] == [1, 2, "amid", *range(3, count + 1), "one", "two"]
    assert [e["created_at"] for e in whole if e["data"].get("step") == 2] == [int(now + 2)]


def test_a_stream_goes_on_where_its_reader_left_it(server: Live, running: Any) -> None:
    record, fence = running
    report(
        server, fence, 1, *(job_log.metrics_entry(n, {"train_loss": 1.0}, 4.0) for n in (1, 2, 3))
    )
    server.http.post(f"{JOBS}/{record.id}/cancel")
    whole: list[Any] = told(server, record.id)
    first = next(event for event in whole if event["type"] == "message")
    rest: list[Any] = told(server, record.id, after=first["id"], after_step=2)
    assert first not in rest
    assert [e["data"]["step"] for e in rest[:-1] if e["type"] == "metrics"] == [3]
    assert rest[-2] == whole[-2]


def test_a_stream_of_a_silent_job_pings_and_is_left_at_once(
    server: Live, running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, _ = running
    monkeypatch.setattr(event_stream, "PING_S", 0.02)
    path, query = f"{JOBS}/{record.id}/events", {"stream": "true"}
    with server.http.stream("GET", path, params=query) as answer:
        assert answer.headers["Cache-Control"] == "no-cache"
        assert ": ping" in answer.iter_lines()
    until(lambda: server.app.state.num_job_streams == 0)


def test_a_stream_says_so_when_the_server_goes_down(server: Live, running: Any) -> None:
    record, _ = running
    server.app.state.is_stopping = lambda: True
    try:
        last, done = told(server, record.id)[-2:]
    finally:
        server.app.state.is_stopping = lambda: False
    assert done == "[DONE]"
    assert isinstance(last, dict)
    assert last["error"]["code"] == "draining"


def test_more_streams_than_the_server_keeps_up_with_are_refused(
    server: Live, running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, _ = running
    monkeypatch.setattr(job_stream, "MAX_STREAMS", 1)
    path, query = f"{JOBS}/{record.id}/events", {"stream": "true"}
    with server.http.stream("GET", path, params=query) as first:
        assert first.status_code == 200
        lines = first.iter_lines()  # kept: without it the connection would be closed
        assert next(lines)
        refused = server.http.get(path, params=query)
        assert (refused.status_code, error_of(refused)["code"]) == (429, "overloaded")
        assert refused.headers["Retry-After"] == "5"
        assert server.http.get(path).status_code == 200
    until(lambda: server.app.state.num_job_streams == 0)


def test_metrics_count_jobs_by_state_and_what_was_trained(serve: Callable[..., Live]) -> None:
    server = serve()
    record, fence = claimed(server, new_job(server)["id"])
    new_job(server)
    point = job_log.metrics_entry(7, {"train_loss": 1.5, "tokens": 700}, 4.0)
    report(server, fence, 1, point, job_log.progress_entry(7, 9, None))
    assert server.metric('overtone_jobs{state="running"}') == 1
    assert server.metric('overtone_jobs{state="queued"}') == 1
    assert server.metric("overtone_train_steps_total") == 7
    assert server.metric("overtone_train_tokens_total") == 700
    assert server.metric("overtone_train_loss") == 1.5
