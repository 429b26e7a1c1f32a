"""Losses that end a job: no number, far above the base, or no longer falling."""

from pathlib import Path
from typing import Any

import pytest

import tiny_encoders
from adapters_core.base.spec import fingerprint
from small_jobs import Killed, Watcher, files_of, job, killing_at, lines, sums
from trainer.base import LoadedBase, make
from trainer.errors import LossDiverged, LossNotFinite
from trainer.interfaces import JobFiles
from trainer.training.run import run_job


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
