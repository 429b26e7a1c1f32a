"""A whole job: its files, and what it does when it is interrupted or its input is wrong."""

import json
import logging
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny_encoders
from adapters_core.base.spec import fingerprint
from adapters_core.contract.method_registry import registered
from adapters_core.format.read import read_adapter
from adapters_core.layers.training_plan import TrainingPlan
from small_jobs import Killed, Watcher, files_of, job, killing_at, lines, lm_base, sums
from trainer.base import LoadedBase, make
from trainer.errors import (
    Cancelled,
    InvalidHyperparameter,
    InvalidMethod,
    InvalidTrainingFile,
    LossDiverged,
    LossNotFinite,
    Paused,
    TrainerError,
    WrongBase,
)
from trainer.interfaces import JobFiles
from trainer.training.presets import CANDIDATES
from trainer.training.run import run_job

STEPS = 14  # 27 examples, four a step, two epochs


@pytest.fixture(scope="module")
def base() -> LoadedBase:
    return lm_base()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> JobFiles:
    return JobFiles(sums(tmp_path_factory.mktemp("files") / "sums.jsonl"))


@pytest.fixture(scope="module")
def undisturbed(
    base: LoadedBase, files: JobFiles, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bytes, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    run_job(job(base), base, files, folder, Watcher())
    return files_of(folder)


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


def test_a_job_killed_anywhere_ends_in_the_undisturbed_bytes(
    base: LoadedBase, files: JobFiles, undisturbed: tuple[bytes, bytes], tmp_path: Path
) -> None:
    for number in random.Random(3).choices(range(1, 13), k=6):
        with pytest.raises(Killed):
            run_job(job(base), base, files, tmp_path, Watcher(killing_at(number)))
        assert not (tmp_path / "adapter_model.safetensors").exists()
    watcher = Watcher()
    run_job(job(base), base, files, tmp_path, watcher)
    assert files_of(tmp_path) == undisturbed
    assert any("going on from the checkpoint" in message for _, message in watcher.events)


def test_a_finished_job_that_is_run_again_gives_the_same_bytes(
    base: LoadedBase, files: JobFiles, undisturbed: tuple[bytes, bytes], tmp_path: Path
) -> None:
    first = run_job(job(base), base, files, tmp_path, Watcher())
    again = run_job(job(base), base, files, tmp_path, Watcher())
    assert files_of(tmp_path) == undisturbed
    assert again.metrics["eval_loss"] == first.metrics["eval_loss"]


@pytest.mark.parametrize(("wanted", "raised"), [("pause", Paused), ("cancel", Cancelled)])
def test_a_job_stops_within_a_step_and_goes_on_from_there(
    base: LoadedBase,
    files: JobFiles,
    undisturbed: tuple[bytes, bytes],
    tmp_path: Path,
    wanted: str,
    raised: type[Exception],
) -> None:
    watcher = Watcher(lambda asked: "go" if asked < 9 else wanted)  # type: ignore[arg-type,return-value]
    with pytest.raises(raised):
        run_job(job(base), base, files, tmp_path, watcher)
    assert watcher.asked == 9
    assert watcher.checkpoints[-1][0] == watcher.places[-1][0]
    run_job(job(base), base, files, tmp_path, Watcher())
    assert files_of(tmp_path) == undisturbed


@pytest.mark.parametrize("method", sorted(registered()))
def test_every_method_learns_by_its_preset_and_resumes_exactly(
    method: str, base: LoadedBase, files: JobFiles, tmp_path: Path
) -> None:
    small = {"c3a": {"block_size": 8}, "vera": {"r": 16}, "tinylora": {"u": 8}}
    spec = job(base, method=method, method_config=small.get(method, {}))
    done = run_job(spec, base, files, tmp_path / "whole", Watcher())
    assert done.metrics["eval_loss"] < done.base_metrics["eval_loss"]
    with pytest.raises(Killed):
        run_job(spec, base, files, tmp_path / "cut", Watcher(killing_at(11)))
    run_job(spec, base, files, tmp_path / "cut", Watcher())
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def test_another_seed_is_another_adapter(
    base: LoadedBase, files: JobFiles, undisturbed: tuple[bytes, bytes], tmp_path: Path
) -> None:
    run_job(job(base, seed=1), base, files, tmp_path, Watcher())
    assert files_of(tmp_path) != undisturbed


def test_packing_and_accumulation_change_nothing_but_rounding(
    base: LoadedBase, files: JobFiles, undisturbed: tuple[bytes, bytes], tmp_path: Path
) -> None:
    run_job(job(base), base, files, tmp_path / "plain", Watcher())
    expected = load_file(tmp_path / "plain" / "adapter_model.safetensors")
    for number, changes in enumerate(({"packing": False}, {"gradient_accumulation": 3})):
        folder = tmp_path / str(number)
        run_job(job(base, **changes, max_steps=3), base, files, folder, Watcher())
        run_job(job(base, max_steps=3), base, files, tmp_path / "three", Watcher())
        found = load_file(folder / "adapter_model.safetensors")
        three = load_file(tmp_path / "three" / "adapter_model.safetensors")
        assert found.keys() == expected.keys()
        for name, tensor in found.items():
            assert (tensor - three[name]).norm() < 1e-2 * three[name].norm()


def test_gradient_checkpointing_changes_nothing_but_memory(
    base: LoadedBase, files: JobFiles, undisturbed: tuple[bytes, bytes], tmp_path: Path
) -> None:
    run_job(job(base, gradient_checkpointing=True), base, files, tmp_path, Watcher())
    assert files_of(tmp_path)[0] == undisturbed[0]


def test_gradient_checkpointing_of_a_classifier_warns_of_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    task = "sequence_classification"
    base = make(tiny_encoders.model("bert"), tiny_encoders.tokenizer(), "tiny", task)
    uses_cache = base.model.config.use_cache  # type: ignore[union-attr]
    files = JobFiles(lines(tmp_path / "a", ({"text": f"{i}", "label": i % 2} for i in range(20))))
    written = []
    for is_on in (True, False):
        folder = tmp_path / str(is_on)
        spec = job(base, task, max_steps=3, gradient_checkpointing=is_on)
        run_job(spec, base, files, folder, Watcher())
        written.append(files_of(folder)[0])
    assert written[0] == written[1]
    assert base.model.config.use_cache == uses_cache  # type: ignore[union-attr]
    assert not [record.getMessage() for record in caplog.records]


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


def test_a_loss_that_is_not_finite_ends_the_job_with_its_step_and_rate(
    base: LoadedBase, files: JobFiles, tmp_path: Path
) -> None:
    huge = {"n_frequency": 40, "scaling": 1e30}
    spec = job(base, method_config=huge, learning_rate=1e6, warmup_ratio=0.0, max_grad_norm=0.0)
    with pytest.raises(LossNotFinite) as raised:
        run_job(spec, base, files, tmp_path, Watcher())
    assert raised.value.code == "loss_not_finite"
    assert raised.value.details["step"] == raised.value.step >= 1
    assert raised.value.details["learning_rate"] > 1e5
    assert not (tmp_path / "adapter_model.safetensors").exists()
    assert fingerprint(base.model) == base.spec.fingerprint
    run_job(job(base), base, files, tmp_path, Watcher())  # the base is as it was


def test_a_job_stops_early_and_keeps_its_best(base: LoadedBase, tmp_path: Path) -> None:
    rows = sums(tmp_path / "few.jsonl", 8)
    files = JobFiles(rows, lines(tmp_path / "other.jsonl", [{"text": "zzzz"}, {"text": "qqqq"}]))
    watcher = Watcher()
    spec = job(base, n_epochs=30, eval_every=2, early_stopping_patience=2)
    done = run_job(spec, base, files, tmp_path / "job", watcher)
    losses = [values["eval_loss"] for _, values in watcher.values if "eval_loss" in values]
    assert done.steps < 60
    assert any("stopped early" in message for _, message in watcher.events)
    assert done.metrics["eval_loss"] == pytest.approx(min(losses[1:]), rel=1e-5)
    with pytest.raises(Killed):
        run_job(spec, base, files, tmp_path / "cut", Watcher(killing_at(9)))
    run_job(spec, base, files, tmp_path / "cut", Watcher())
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "job")


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


# What a job's config says is done, or it is refused.


def trained(
    base: LoadedBase, files: JobFiles, folder: Path, method: str, config: dict[str, Any]
) -> tuple[bytes, bytes]:
    run_job(job(base, method=method, method_config=config), base, files, folder, Watcher())
    return files_of(folder)


def test_dropout_is_applied_recorded_and_the_same_after_a_resume(
    base: LoadedBase, files: JobFiles, tmp_path: Path
) -> None:
    config = {"r": 2, "lora_dropout": 0.5}
    first = trained(base, files, tmp_path / "first", "lora", config)
    assert trained(base, files, tmp_path / "again", "lora", config) == first
    assert json.loads(first[1])["lora_dropout"] == 0.5
    assert trained(base, files, tmp_path / "without", "lora", {"r": 2})[0] != first[0]
    folder = tmp_path / "died"
    spec = job(base, method="lora", method_config=config)
    with pytest.raises(Killed):
        run_job(spec, base, files, folder, Watcher(disturb=killing_at(12)))
    run_job(spec, base, files, folder, Watcher())
    assert files_of(folder) == first


def test_a_gaussian_start_is_another_adapter_and_is_recorded(
    base: LoadedBase, files: JobFiles, tmp_path: Path
) -> None:
    usual = trained(base, files, tmp_path / "usual", "lora", {"r": 2})
    gaussian = {"r": 2, "init_lora_weights": "gaussian"}
    other = trained(base, files, tmp_path / "other", "lora", gaussian)
    assert json.loads(other[1])["init_lora_weights"] == "gaussian"
    assert other[0] != usual[0]


@pytest.mark.parametrize(
    ("method", "config", "wanted"),
    [
        ("lora", {"r": 2, "rank_pattern": {"v_proj": 3}}, ("r", 2, 3)),
        ("dora", {"r": 2, "alpha_pattern": {"v_proj": 3.0}}, ("alpha", 16.0, 3.0)),
        ("fourierft", {"n_frequency": 20, "n_frequency_pattern": {"v_proj": 30}}, ("n", 20, 30)),
        ("loca", {"n_frequency": 20, "n_frequency_pattern": {"v_proj": 30}}, ("n", 20, 30)),
        ("waveletft", {"n_frequency": 20, "n_frequency_pattern": {"v_proj": 30}}, ("n", 20, 30)),
        ("c3a", {"block_size": 16, "block_size_pattern": {"v_proj": 8}}, ("block_size", 16, 8)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_layers_that_a_pattern_names_are_trained_as_it_says(
    base: LoadedBase,
    files: JobFiles,
    tmp_path: Path,
    method: str,
    config: dict[str, Any],
    wanted: tuple[str, Any, Any],
) -> None:
    trained(base, files, tmp_path, method, config)
    raw = (tmp_path / "adapter_config.json").read_bytes()
    adapter = read_adapter(tmp_path / "adapter_model.safetensors", raw, base.spec)
    name, usual, own = wanted
    found = {target: getattr(made, name) for target, made in adapter.methods.items()}
    assert found == {t: own if t.endswith("v_proj") else usual for t in found}
    assert len(found) == 4


def test_the_rate_follows_from_the_layer_that_a_pattern_crowds_most(base: LoadedBase) -> None:
    from trainer.training.presets import setting_of

    pattern = {"n_frequency": 20, "n_frequency_pattern": {"v_proj": 900}, "scaling": 40.0}
    crowded = setting_of("fourierft", pattern, job(base).hyperparameters, base.spec)
    plain = setting_of(
        "fourierft", pattern | {"n_frequency": 900}, job(base).hyperparameters, base.spec
    )
    assert crowded.rates == plain.rates


@pytest.fixture(scope="module")
def odd_base() -> LoadedBase:
    """A base of odd, unequal widths: heads of 10 for 5 queries and one key, 2 x 43 between."""
    import tiny

    sizes = {
        "hidden_size": 50,
        "num_attention_heads": 5,
        "num_key_value_heads": 1,
        "intermediate_size": 43,
    }
    return make(tiny.model("llama", **sizes), tiny.tokenizer(), "odd", "causal_lm")


@pytest.mark.parametrize("layers", [None, "all-linear"])
@pytest.mark.parametrize("method", sorted(registered()))
def test_every_preset_goes_from_job_to_file_on_layers_of_odd_and_unequal_shapes(
    odd_base: LoadedBase, files: JobFiles, tmp_path: Path, method: str, layers: str | None
) -> None:
    config = {} if layers is None else {"target_modules": layers}
    spec = job(odd_base, method=method, method_config=config, max_steps=2)
    done = run_job(spec, odd_base, files, tmp_path, Watcher())
    raw = (tmp_path / "adapter_config.json").read_bytes()
    adapter = read_adapter(tmp_path / "adapter_model.safetensors", raw, odd_base.spec)
    assert adapter.description.digest == done.details["digest"]
    assert len(adapter.methods) == (4 if layers is None else 14)


@pytest.fixture
def numbers(tmp_path: Path) -> JobFiles:
    rows = ({"text": f"item {i}", "label": i / 30} for i in range(30))
    return JobFiles(lines(tmp_path / "numbers.jsonl", rows))


#: A head that learns so fast that each step throws it farther off.
_WILD: dict[str, Any] = {"head_learning_rate": 300.0, "n_epochs": 20, "max_grad_norm": 0.0}


def regressor() -> LoadedBase:
    model = tiny_encoders.model("bert", num_labels=1)
    return make(model, tiny_encoders.tokenizer(), "tiny", "regression")


def test_a_run_that_stays_far_above_the_base_ends_early_and_says_why(
    numbers: JobFiles, tmp_path: Path
) -> None:
    watcher, base = Watcher(), regressor()
    spec = job(base, "regression", **_WILD)
    with pytest.raises(LossDiverged, match="smaller learning_rate_multiplier") as raised:
        run_job(spec, base, numbers, tmp_path, watcher)
    assert raised.value.code == "loss_diverged"
    assert watcher.places[-1][0] < 40  # of 140
    assert not (tmp_path / "adapter_model.safetensors").exists()


def test_a_run_that_looks_for_the_best_goes_back_to_it_where_it_diverges(
    numbers: JobFiles, tmp_path: Path
) -> None:
    watcher, base = Watcher(), regressor()
    spec = job(base, "regression", **_WILD, early_stopping_patience=50, eval_every=1)
    done = run_job(spec, base, numbers, tmp_path, watcher)
    assert done.steps < 40
    assert any("ends with the best evaluation" in text for _, text in watcher.events)


def test_a_run_that_is_no_better_than_the_base_says_so_in_a_warning(
    base: LoadedBase, files: JobFiles, tmp_path: Path
) -> None:
    watcher = Watcher()
    spec = job(base, method="shira", method_config={}, learning_rate=30.0, max_steps=2)
    done = run_job(spec, base, files, tmp_path, watcher)
    assert done.metrics["eval_loss"] > done.base_metrics["eval_loss"]
    said = [text for level, text in watcher.events if level == "warn"]
    assert any("not better than" in text for text in said)


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
