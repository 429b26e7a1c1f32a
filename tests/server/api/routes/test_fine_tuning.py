"""Jobs over REST: what is filed, and what is refused and how."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from adapters_core.contract.method_registry import registered
from live import JSON, Live, error_of
from registry import Hyperparameters
from server.api.job_schemas import HyperparametersRequest
from training_parts import JOBS, TEXTS, file_id, job_told, jsonl, new_job, post_job

HYPER = "method.supervised.hyperparameters"


@pytest.fixture(scope="module")
def server(serve_all: Callable[..., Live]) -> Live:
    return serve_all()


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
    assert job_told(server, job["id"]) == job
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
    events = job_told(server, job["id"], "/events")["data"]
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
