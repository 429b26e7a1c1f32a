"""A whole job: its files, what it tells, and what it does where its input is wrong."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from adapters_core.base.spec import fingerprint
from adapters_core.format.read import read_adapter
from adapters_core.layers.training_plan import TrainingPlan
from small_jobs import Killed, Watcher, job, killing_at, lines, lm_base
from trainer.base import LoadedBase
from trainer.errors import (
    Cancelled,
    InvalidHyperparameter,
    InvalidMethod,
    InvalidTrainingFile,
    TrainerError,
    WrongBase,
)
from trainer.interfaces import JobFiles
from trainer.training.presets import CANDIDATES
from trainer.training.run import run_job

STEPS = 14  # 27 examples, four a step, two epochs


def test_a_job_leaves_an_adapter_that_a_server_reads(
    base: LoadedBase, files: JobFiles, tmp_path: Path
) -> None:
    before = fingerprint(base.model)
    watcher = Watcher()
    done = run_job(job(base), base, files, tmp_path, watcher)
    config = (tmp_path / "adapter_config.json").read_bytes()
    adapter = read_adapter(tmp_path / "adapter_model.safetensors", config, base.spec)
    assert adapter.description.base_verified
    assert adapter.description.digest == done.details["digest"]
    assert done.steps == STEPS
    assert done.method == "fourierft"
    assert done.method_config["n_frequency"] == 40
    assert done.metrics["eval_loss"] < done.base_metrics["eval_loss"]
    assert fingerprint(base.model) == before
    assert [type(m).__name__ for m in base.model.modules()].count("AdaptedLinear") == 0


def test_a_job_tells_every_step(base: LoadedBase, files: JobFiles, tmp_path: Path) -> None:
    watcher = Watcher()
    run_job(job(base), base, files, tmp_path, watcher)
    steps = [step for step, values in watcher.values if "train_loss" in values]
    assert steps == list(range(1, STEPS + 1))
    assert [step for step, values in watcher.values if "eval_loss" in values] == [0, STEPS]
    assert [place[:2] for place in watcher.places][-1] == (STEPS, STEPS)
    assert watcher.places[-1][2] == 0
    assert watcher.checkpoints == [(step, f"step-{step:08d}") for step in (3, 6, 9, 12)]
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-00000009", "step-00000012"]


def test_layers_too_small_for_a_config_are_named(
    base: LoadedBase, files: JobFiles, tmp_path: Path
) -> None:
    config = {"n_frequency": 4000}  # v_proj has 32 * 96 cells
    watcher = Watcher()
    done = run_job(job(base, method_config=config), base, files, tmp_path / "large", watcher)
    (warning,) = [message for level, message in watcher.events if level == "warn"]
    assert warning.startswith("2 layers are too small")
    assert "layers.0.self_attn.v_proj" in warning
    assert '"n": 3072' in warning
    assert set(done.method_config["n_frequency_pattern"].values()) == {3072}
    watcher = Watcher()
    run_job(job(base), base, files, tmp_path / "small", watcher)
    assert [level for level, _ in watcher.events if level == "warn"] == []


def test_what_the_last_evaluation_loads_is_loaded_before_the_first_step(
    base: LoadedBase, files: JobFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, learns = TrainingPlan.forward, list[bool]()

    def forward(self: TrainingPlan, *args: Any) -> torch.Tensor:
        learns.append(torch.is_grad_enabled())
        return real(self, *args)

    monkeypatch.setattr(TrainingPlan, "forward", forward)
    run_job(job(base), base, files, tmp_path, Watcher())
    assert not learns[0]
    assert True in learns


def test_a_base_in_half_precision_trains_float32_coefficients(
    files: JobFiles, tmp_path: Path
) -> None:
    half = lm_base()
    half.model.to(torch.bfloat16)
    spec = replace(job(half), base_fingerprint=half.spec.fingerprint)
    done = run_job(spec, half, files, tmp_path, Watcher())
    assert done.metrics["eval_loss"] < done.base_metrics["eval_loss"]
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_auto_trains_the_best_of_its_short_runs(
    base: LoadedBase, files: JobFiles, tmp_path: Path
) -> None:
    spec = job(base, method="auto", method_config={}, max_steps=4)
    with pytest.raises(Killed):
        run_job(spec, base, files, tmp_path, Watcher(killing_at(25)))
    done = run_job(spec, base, files, tmp_path, Watcher())
    tried = json.loads((tmp_path / "auto.json").read_text())
    assert set(tried) == set(CANDIDATES)
    assert done.method == min(tried, key=lambda name: tried[name])
    assert done.metrics["eval_loss"] == pytest.approx(min(tried.values()))


@pytest.mark.parametrize(
    ("changes", "error", "param"),
    [
        ({"method": "nonsense"}, InvalidMethod, "method"),
        ({"method_config": {"n_frequency": 0}}, InvalidMethod, "n_frequency"),
        ({"method_config": {"n_frequency": "many"}}, InvalidMethod, "n_frequency"),
        ({"method_config": {"rank": 3}}, InvalidMethod, "rank"),
        ({"method_config": {"n_frequency_pattern": {"v_proj": 0}}}, InvalidMethod, "n_frequency"),
        ({"method_config": {"target_modules": ["k_prj"]}}, InvalidMethod, "target_modules"),
        ({"n_epochs": 0}, InvalidHyperparameter, "n_epochs"),
        ({"batch_size": "4"}, InvalidHyperparameter, "batch_size"),
        ({"learning_rate": -1.0}, InvalidHyperparameter, "learning_rate"),
        ({"max_length": 5000}, InvalidHyperparameter, "max_length"),
        ({"schedule": "steps"}, InvalidHyperparameter, "schedule"),
        ({"checkpoint_samples": 5}, InvalidHyperparameter, "checkpoint_samples"),
        ({"gradient_accumulation": 5}, InvalidHyperparameter, "gradient_accumulation"),
        ({"warmup_ratio": float("nan")}, InvalidHyperparameter, "warmup_ratio"),
        ({"task": "poetry"}, InvalidHyperparameter, "task"),
        ({"base_fingerprint": "sha256:0"}, WrongBase, "model"),
    ],
)
def test_what_cannot_be_trained_is_named_before_anything_is_read(
    base: LoadedBase,
    tmp_path: Path,
    changes: dict[str, object],
    error: type[TrainerError],
    param: str,
) -> None:
    with pytest.raises(error) as raised:
        run_job(job(base, **changes), base, JobFiles(tmp_path / "none"), tmp_path / "x", Watcher())
    assert raised.value.param == param
    assert raised.value.code


def test_a_job_is_valid_once_every_example_is_read_and_before_it_trains(
    base: LoadedBase, files: JobFiles, tmp_path: Path
) -> None:
    watcher = Watcher()
    run_job(job(base, method="auto", method_config={}), base, files, tmp_path / "good", watcher)
    said = [message for _, message in watcher.events]
    assert [message.partition(" ")[2][:12] for message in said[:2]] == [
        "training and",
        "job is valid",
    ]
    assert said[2].startswith("auto: ")

    bad = lines(tmp_path / "bad.jsonl", [{"text": "a"}] * 3 + [{"text": "b" * 5000}])
    watcher = Watcher()
    with pytest.raises(InvalidTrainingFile, match="line 4"):
        run_job(job(base), base, JobFiles(bad), tmp_path / "bad", watcher)
    assert watcher.events == []


def test_slow_preparation_of_layers_is_reported_and_can_be_stopped(
    base: LoadedBase, files: JobFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.training.messages._PERIOD_S", 0.0)
    watcher = Watcher()
    spec = job(base, method="frod", method_config={}, max_steps=1)
    run_job(spec, base, files, tmp_path / "told", watcher)
    told = [text for _, text in watcher.events if "ready to be trained" in text]
    assert told == [f"frod: {done} of 4 layers are ready to be trained" for done in range(1, 5)]
    stopping = Watcher(disturb=lambda asked: "cancel" if asked > 2 else "go")
    with pytest.raises(Cancelled):
        run_job(spec, base, files, tmp_path / "stopped", stopping)
