"""Jobs over REST: what is filed, what is refused and how, and what is told of a job's life."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import pytest

from adapters_core.contract.method_registry import registered
from live import JSON, Live
from registry import Hyperparameters, JobError
from registry.jobs import log as job_log
from server.api import event_stream, job_stream
from server.api.job_schemas import HyperparametersRequest
from training_parts import (
    TEXTS,
    claimed,
    error_of,
    file_id,
    jsonl,
    new_job,
    post_job,
    report,
    taken,
)
from waiting import until

JOBS = "/v1/fine_tuning/jobs"
HYPER = "method.supervised.hyperparameters"
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


def get(server: Live, id_: str, tail: str = "", **query: Any) -> dict[str, Any]:
    answer = server.http.get(f"{JOBS}/{id_}{tail}", params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


# Filing


def test_a_job_is_filed_in_openais_shape(server: Live) -> None:
    file = file_id(server)
    hyper = {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": 0.5}
    job = new_job(
        server,
        file,
        seed=7,
        metadata={"team": "blue"},
        method={"type": "supervised", "supervised": {"hyperparameters": hyper}},
        adapter={"method": "loca", "name": "shaped", "config": {"n_frequency": 50}},
    )
    assert job["object"] == "fine_tuning.job"
    assert (job["status"], job["model"], job["training_file"]) == ("queued", "tiny", file)
    assert (job["fine_tuned_model"], job["error"], job["finished_at"]) == (None, None, None)
    assert job["hyperparameters"] == {
        "n_epochs": 2,
        "batch_size": Hyperparameters().batch_size,
        "learning_rate_multiplier": 0.5,
    }
    assert (job["seed"], job["metadata"]) == (7, {"team": "blue"})
    assert job["adapter"]["method"] == "loca"
    assert job["adapter"]["config"] == {"n_frequency": 50}
    assert job["adapter"]["task"] == "causal_lm"
    assert get(server, job["id"]) == job
    server.http.post(f"{JOBS}/{job['id']}/cancel")


def test_a_job_needs_no_more_than_a_model_and_a_file(server: Live) -> None:
    one, two = new_job(server), new_job(server)
    assert one["adapter"]["name"] == f"tiny-{one['id'][-8:]}"
    assert one["seed"] != two["seed"]
    assert new_job(server, suffix="mine")["adapter"]["name"] == "mine"
    assert new_job(server, suffix="org/mine")["adapter"]["name"] == "org/mine"
    assert new_job(server, adapter={"name": "org/own"})["adapter"]["name"] == "org/own"
    for name in ("org/versions", "a/b/c", "org/", "../x"):
        answer = post_job(server, adapter={"name": name})
        assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_request")
    for job in server.http.get(JOBS).json()["data"]:
        server.http.post(f"{JOBS}/{job['id']}/cancel")


def test_every_hyperparameter_of_a_job_can_be_given() -> None:
    own = {field.name for field in fields(Hyperparameters)}
    assert set(HyperparametersRequest.model_fields) == own
    assert HyperparametersRequest().chosen() == Hyperparameters()


def hyper(**values: Any) -> dict[str, Any]:
    return {"method": {"type": "supervised", "supervised": {"hyperparameters": values}}}


@pytest.mark.parametrize(
    ("changes", "status", "code", "param"),
    [
        ({"model": "nobody"}, 404, "model_not_found", None),
        ({"training_file": f"file-{'0' * 24}"}, 404, "not_found", None),
        ({"validation_file": f"file-{'0' * 24}"}, 404, "not_found", None),
        ({"training_file": 3}, 400, "invalid_request", "training_file"),
        ({"seed": -1}, 400, "invalid_request", "seed"),
        ({"colour": "red"}, 400, "unsupported_parameter", "colour"),
        ({"integrations": [{"type": "wandb"}]}, 400, "unsupported_parameter", "integrations"),
        ({"seed": True}, 400, "invalid_request", "seed"),
        ({"metadata": {"training": "x"}}, 400, "invalid_request", "metadata.training"),
        ({"metadata": {"labels": "x"}}, 400, "invalid_request", "metadata.labels"),
        ({"metadata": {"a": "x" * 600}}, 400, "invalid_request", "metadata.a"),
        ({"method": {"type": "dpo"}}, 400, "invalid_request", "method.type"),
        (
            hyper(n_epocs=1),
            400,
            "unsupported_parameter",
            "method.supervised.hyperparameters.n_epocs",
        ),
        (hyper(n_epochs=0), 400, "invalid_request", "method.supervised.hyperparameters.n_epochs"),
        (hyper(schedule="x"), 400, "invalid_request", "method.supervised.hyperparameters.schedule"),
        (
            hyper(batch_size=2, gradient_accumulation=4),
            400,
            "invalid_request",
            "method.supervised.hyperparameters",
        ),
        *(
            (hyper(**{name: value}), 400, "invalid_request", f"{HYPER}.{name}")
            for name, value in {
                "batch_size": True,
                "n_epochs": "3",
                "learning_rate": "0.1",
                "packing": "yes",
                "max_length": 100_000,
            }.items()
        ),
        ({"adapter": {"methd": "loca"}}, 400, "unsupported_parameter", "adapter.methd"),
        ({"adapter": {"name": "a b"}}, 400, "invalid_request", None),
        ({"adapter": {"name": "tiny"}}, 400, "invalid_request", "adapter.name"),
        ({"adapter": {"alias": "latest"}}, 400, "invalid_request", None),
        ({"adapter": {"task": "regression"}}, 400, "invalid_request", "adapter.task"),
        ({"adapter": {"task": "dreaming"}}, 400, "invalid_request", "adapter.task"),
        (
            {"adapter": {"publish_if": {"metric": "eval_loss", "better_than": "base"}}},
            400,
            "invalid_request",
            "adapter.publish_if",
        ),
        (
            {"adapter": {"alias": "a", "publish_if": {"metric": "x", "better_than": "y"}}},
            400,
            "invalid_request",
            "adapter.publish_if.better_than",
        ),
        (
            {"adapter": {"alias": "a", "publish_if": {"metric": "f1", "better_than": "base"}}},
            400,
            "invalid_request",
            "adapter.publish_if.metric",
        ),
        ({"adapter": {"method": "magic"}}, 422, "unknown_method", "adapter.method"),
        ({"adapter": {"config": {"n_freq": 3}}}, 422, "invalid_adapter", "adapter.config.n_freq"),
        *(
            (
                {"adapter": {"config": {"n_frequency": value}}},
                422,
                "invalid_adapter",
                "adapter.config.n_frequency",
            )
            for value in ("x", 0)
        ),
        ({"adapter": {"config": {"r": 8}}}, 422, "invalid_adapter", "adapter.config.r"),
        (
            {"adapter": {"config": {"target_modules": ["q_proj", "nothing"]}}},
            422,
            "invalid_adapter",
            "adapter.config.target_modules",
        ),
        ({"adapter": {"config": {"a": "x" * 9000}}}, 422, "invalid_adapter", "adapter.config"),
        (
            {"adapter": {"method": "auto", "config": {"r": 1}}},
            422,
            "invalid_adapter",
            "adapter.config",
        ),
    ],
)
def test_what_does_not_fit_is_refused_and_named(
    server: Live, changes: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    before = server.http.get(JOBS, params={"limit": 1000}).json()
    answer = post_job(server, **changes)
    assert (answer.status_code, error_of(answer)["code"]) == (status, code), answer.text
    assert error_of(answer)["param"] == param, answer.text
    assert server.http.get(JOBS, params={"limit": 1000}).json() == before


def test_an_adapter_is_no_base_to_train_on(server: Live) -> None:
    import spectra

    assert server.upload("grown", spectra.files(1)).status_code == 201
    answer = post_job(server, model="grown")
    assert answer.status_code == 400
    assert "'tiny'" in error_of(answer)["message"]


def test_a_body_that_is_no_json_is_400(server: Live) -> None:
    for content in (b"{", b"\xff", b"[]", b"null"):
        assert server.http.post(JOBS, content=content, headers=JSON).status_code == 400


def test_a_job_on_a_file_with_faults_fails_before_it_is_queued(server: Live) -> None:
    job = new_job(server, file_id(server, b'{"text": "a"}\nnope\n'))
    assert job["status"] == "failed"
    assert job["error"]["code"] == "invalid_training_file"
    assert job["error"]["param"] == "training_file"
    assert "line 2: is not JSON" in job["error"]["message"]
    events = get(server, job["id"], "/events")["data"]
    assert events[0]["level"] == "error"
    assert "line 2" in events[0]["message"]


def test_a_validation_file_is_held_against_the_task_too(server: Live) -> None:
    wrong = file_id(server, b"nope\n{}")
    job = new_job(server, validation_file=wrong)
    assert (job["status"], job["error"]["param"]) == ("failed", "validation_file")


def test_a_classifier_takes_labels_and_no_plain_texts(serve: Callable[..., Live]) -> None:
    server = serve(task="classify")
    labelled = file_id(server, jsonl({"text": "a", "label": 0}, {"text": "b", "label": 1}))
    job = new_job(server, labelled)
    assert (job["status"], job["adapter"]["task"]) == ("queued", "sequence_classification")
    numbers = new_job(server, labelled, adapter={"task": "regression"})
    assert numbers["adapter"]["task"] == "regression"
    failed = new_job(server, file_id(server))
    assert failed["status"] == "failed"
    assert f"{len(TEXTS)} of its examples are text examples" in failed["error"]["message"]


# Its life


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
    tokens = job_log.metrics_entry(5, {"tokens": 400})
    report(server, fence, 1, job_log.progress_entry(5, 20, 30.0), tokens)
    job = get(server, record.id)
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
    assert get(server, id_)["status"] == "validating_files"
    assert server.metric('overtone_jobs{state="validating_files"}') == 1
    assert server.http.post(f"{JOBS}/{id_}/pause").json()["status"] == "paused"
    assert server.http.post(f"{JOBS}/{id_}/resume").json()["status"] == "queued"
    _, fence = taken(server, id_)
    fault = JobError("invalid_training_file", "line 7: is too long", "training_file")
    server.service.registry.claims.fail(fence, fault, now=time.time())
    assert get(server, id_)["error"]["message"] == fault.message
    last = get(server, id_, "/events")["data"][0]
    assert last["data"] == {"from": "validating_files", "to": "failed"}


def test_events_are_listed_the_newest_first_page_by_page(server: Live, running: Any) -> None:
    record, fence = running
    entries = [job_log.event_entry("info", f"number {n}", {"n": n}, 5.0) for n in range(5)]
    report(server, fence, 1, *entries)
    page = get(server, record.id, "/events", limit=3)
    assert [event["message"] for event in page["data"]] == ["number 4", "number 3", "number 2"]
    assert page["has_more"]
    event = page["data"][-1]
    assert (event["object"], event["type"], event["data"]) == (
        "fine_tuning.job.event",
        "message",
        {"n": 2},
    )
    rest = get(server, record.id, "/events", limit=1000, after=event["id"])
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
    page = get(server, record.id, "/checkpoints", limit=2)
    assert [one["step_number"] for one in page["data"]] == [15, 10]
    assert page["has_more"]
    assert page["data"][0]["object"] == "fine_tuning.job.checkpoint"
    assert page["data"][0]["fine_tuning_job_id"] == record.id
    rest = get(server, record.id, "/checkpoints", after=page["data"][-1]["id"])
    assert [one["step_number"] for one in rest["data"]] == [5]
    wrong = server.http.get(f"{JOBS}/{record.id}/checkpoints", params={"after": "x"})
    assert wrong.status_code == 400


@pytest.mark.parametrize("what", ["files", "jobs", "events", "metrics", "checkpoints"])
def test_a_page_that_is_just_full_is_not_said_to_have_more(
    server: Live, running: Any, what: str
) -> None:
    record, fence = running
    server.http.post(f"{JOBS}/{new_job(server)['id']}/cancel")
    steps = range(1, 4)
    points = [job_log.metrics_entry(step, {"train_loss": 1.0}) for step in steps]
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
    points = [job_log.metrics_entry(n, {"train_loss": 4.0 / n}) for n in range(1, 2001)]
    report(server, fence, 1, *points)
    page = get(server, record.id, "/metrics", limit=2)
    assert [(point["step"], point["train_loss"]) for point in page["data"]] == [(1, 4.0), (2, 2.0)]
    rest = get(server, record.id, "/metrics", limit=1, after=page["last_id"])
    assert rest["data"][0]["step"] == 3
    drawn = server.http.get(path)
    assert drawn.headers["content-type"] == "image/png"
    assert drawn.content not in (empty.content, b"")
    assert server.http.get(path).content == drawn.content


def test_a_job_that_published_names_its_version(server: Live, running: Any) -> None:
    record, fence = running
    claims = server.service.registry.claims
    claims.fail(fence, JobError("loss_not_finite", "NaN at step 3", "x"), now=time.time())
    job = get(server, record.id)
    assert (job["status"], job["fine_tuned_model"]) == ("failed", None)
    assert job["error"] == {"code": "loss_not_finite", "message": "NaN at step 3", "param": "x"}
    assert job["finished_at"] >= job["created_at"]


# As a stream


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
    step = job_log.metrics_entry(1, {"train_loss": 2.5})
    report(server, fence, 2, job_log.progress_entry(1, 4, 9.0), step)
    until(lambda: get(server, record.id)["overtone"]["progress"]["step"] == 1)
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


def test_a_stream_goes_on_where_its_reader_left_it(server: Live, running: Any) -> None:
    record, fence = running
    report(server, fence, 1, *(job_log.metrics_entry(n, {"train_loss": 1.0}) for n in (1, 2, 3)))
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


# Metrics


def test_metrics_count_jobs_by_state_and_what_was_trained(serve: Callable[..., Live]) -> None:
    server = serve()
    record, fence = claimed(server, new_job(server)["id"])
    new_job(server)
    point = job_log.metrics_entry(7, {"train_loss": 1.5, "tokens": 700})
    report(server, fence, 1, point, job_log.progress_entry(7, 9, None))
    assert server.metric('overtone_jobs{state="running"}') == 1
    assert server.metric('overtone_jobs{state="queued"}') == 1
    assert server.metric("overtone_train_steps_total") == 7
    assert server.metric("overtone_train_tokens_total") == 700
    assert server.metric("overtone_train_loss") == 1.5


# What training would not heed.


@pytest.mark.parametrize(
    ("method", "config", "param"),
    [
        ("lora", {"layers_to_transform": [99]}, "layers_to_transform"),
        (
            "lora",
            {"layers_to_transform": [99], "target_modules": "all-linear"},
            "layers_to_transform",
        ),
        ("lora", {"exclude_modules": ["nothing"]}, "exclude_modules"),
        ("lora", {"init_lora_weights": "nonsense"}, "init_lora_weights"),
        ("lora", {"eva_config": {"rho": 2.0}}, "eva_config"),
        ("lora", {"loftq_config": {"loftq_bits": 4}}, "loftq_config"),
        ("lora", {"lora_dropout": 1.5}, "lora_dropout"),
        ("lora", {"rank_pattern": {"q_proj": "x"}}, "r"),
        ("lora", {"task_type": "SEQ_CLS"}, "task_type"),
        ("lora", {"use_dora": True}, "use_dora"),
        ("dora", {"use_dora": False}, "use_dora"),
        ("fourierft", {"init_weights": False}, "init_weights"),
        ("fourierft", {"peft_type": "LORA"}, "peft_type"),
    ],
)
def test_a_field_that_training_does_not_heed_is_refused_before_there_is_a_job(
    server: Live, method: str, config: dict[str, Any], param: str
) -> None:
    before = server.http.get(JOBS, params={"limit": 1000}).json()
    answer = post_job(server, adapter={"method": method, "config": config})
    assert answer.status_code == 422, answer.text
    assert error_of(answer)["param"] == f"adapter.config.{param}"
    assert f"{param} = " in error_of(answer)["message"]
    assert server.http.get(JOBS, params={"limit": 1000}).json() == before


@pytest.mark.parametrize("method", sorted(registered()))
def test_every_method_may_be_named_alone_or_with_its_type(server: Live, method: str) -> None:
    kind = registered()[method]
    for config in ({}, {"peft_type": kind.peft_type}, kind().to_peft()):
        job = new_job(server, adapter={"method": method, "config": config})
        assert job["status"] == "queued"
        server.http.post(f"{JOBS}/{job['id']}/cancel")


def test_layers_dropout_and_patterns_are_taken(server: Live) -> None:
    config = {
        "target_modules": "all-linear",
        "exclude_modules": ["k_proj"],
        "layers_to_transform": [1],
        "lora_dropout": 0.1,
        "rank_pattern": {"q_proj": 4},
        "init_lora_weights": "gaussian",
        "task_type": "CAUSAL_LM",
    }
    job = new_job(server, adapter={"method": "lora", "config": config})
    assert job["adapter"]["config"] == config
    server.http.post(f"{JOBS}/{job['id']}/cancel")
