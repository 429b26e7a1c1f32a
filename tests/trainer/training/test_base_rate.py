"""A preset's rate on a base: what a step adds to a weight bounds it, and a few steps try it."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny
from adapters_core.contract.layer import Shape
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.training_plan import TrainingPlan
from adapters_core.methods import LoRA
from small_jobs import Killed, Watcher, files_of, job, killing_at, lm_base, sums
from trainer.base import LoadedBase, make
from trainer.interfaces import JobFiles
from trainer.training import base_rate
from trainer.training.preset_values import PRESETS, Preset
from trainer.training.presets import Rates
from trainer.training.run import run_job


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> JobFiles:
    return JobFiles(sums(tmp_path_factory.mktemp("files") / "sums.jsonl"))


@pytest.fixture(scope="module")
def thin_base() -> LoadedBase:
    """A base whose value projections are small, as a real one's are beside those of queries."""
    model = tiny.model("llama")
    for name, parameter in model.named_parameters():
        if "v_proj" in name:
            parameter.data *= 0.02
    return make(model, tiny.tokenizer(), "thin", "causal_lm")


def told(watcher: Watcher, start: str) -> list[tuple[str, str]]:
    return [(level, text) for level, text in watcher.events if text.startswith(start)]


def test_what_a_step_adds_is_what_the_coefficients_say() -> None:
    shape = Shape(12, 20)
    method = LoRA(r=3, alpha=6.0)
    generator = torch.Generator().manual_seed(0)
    plan = TrainingPlan(method, {"a": shape}, BasisCache(torch.device("cpu")), generator)
    before = {name: tensor.detach().clone() for name, tensor in plan.layers["a"].items()}
    step = plan.step_of("a", 0.1, torch.Generator().manual_seed(1))
    draws = torch.Generator().manual_seed(1)
    moved = {k: v + 0.1 * torch.randn(v.shape, generator=draws).sign() for k, v in before.items()}
    torch.testing.assert_close(step, method.delta(moved, shape, None))
    assert all(torch.equal(plan.layers["a"][name], before[name]) for name in before)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (7, 300)])
def test_the_spectral_norm_is_lapacks(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    matrix += torch.outer(torch.ones(shape[0]), torch.ones(shape[1]))  # as a weight, no mere noise
    exact = float(torch.linalg.matrix_norm(matrix, 2))
    assert exact * 0.98 < base_rate._spectral(matrix) <= exact * (1 + 1e-5)


def test_a_rate_that_would_add_more_than_a_weight_is_lowered_and_the_run_gets_better(
    thin_base: LoadedBase, files: JobFiles, tmp_path: Path
) -> None:
    watcher = Watcher()
    spec = job(thin_base, method="frod", method_config={})
    done = run_job(spec, thin_base, files, tmp_path, watcher)
    assert done.details["learning_rates"]["coefficients"] < PRESETS["frod"].rate / 4
    assert done.metrics["eval_loss"] < done.base_metrics["eval_loss"]
    ((_, said),) = [each for each in watcher.events if "is the most" in each[1]]
    assert "v_proj" in said


def test_the_bound_is_smaller_by_the_root_of_all_coefficients(
    thin_base: LoadedBase, files: JobFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frod = PRESETS["frod"]

    def rate(few: int) -> float:
        monkeypatch.setitem(PRESETS, "frod", replace(frod, few=few))  # type: ignore[arg-type]
        spec = job(thin_base, method="frod", method_config={}, max_steps=1)
        run_job(spec, thin_base, files, tmp_path / str(few), watcher := Watcher())
        ((_, said),) = [each for each in watcher.events if "is the most" in each[1]]
        return float(said.split()[2])

    ratio = rate(10**9) / rate(1)
    (file,) = (tmp_path / "1").rglob("adapter_model.safetensors")
    count = sum(one.numel() for one in load_file(file).values() if one.is_floating_point())
    assert ratio**2 == pytest.approx(count, rel=0.03)  # rates are told with three digits


def test_a_multiple_is_of_the_rate_that_was_lowered(
    thin_base: LoadedBase, files: JobFiles, tmp_path: Path
) -> None:
    def rate(**hyper: Any) -> float:
        spec = job(thin_base, method="frod", method_config={}, max_steps=1, **hyper)
        done = run_job(spec, thin_base, files, tmp_path / str(hyper), Watcher())
        return float(done.details["learning_rates"]["coefficients"])

    twice = rate(learning_rate_multiplier=2.0)
    assert twice == pytest.approx(4 * rate(learning_rate_multiplier=0.5), rel=1e-9)
    assert twice < PRESETS["frod"].rate / 4


def test_presets_on_a_usual_base_are_not_lowered(files: JobFiles, tmp_path: Path) -> None:
    base = lm_base()
    for method in sorted(PRESETS):
        watcher = Watcher()
        spec = job(base, method=method, method_config={}, max_steps=2)
        done = run_job(spec, base, files, tmp_path / method, watcher)
        rate = done.details["learning_rates"]["coefficients"]
        assert rate == pytest.approx(PRESETS[method].rate, rel=1e-3), method
        assert len(told(watcher, "learning rate")) == 1


class Losses:
    """A trial with known losses: those after each rate, from the full one on."""

    num_steps, of_all = 4, 80

    def __init__(self, before: float, *after: float) -> None:
        self.before, self.after, self.rates = before, after, list[float]()

    def loss(self) -> float:
        return self.before

    def run(self, rates: Rates) -> float:
        self.rates.append(rates.coefficients)
        return self.after[len(self.rates) - 1]


@pytest.mark.parametrize(
    ("before", "after", "chosen", "level"),
    [
        (3.0, (2.0, 2.5), 0, "info"),  # the third is worse
        (3.0, (2.0, 1.82), 0, "info"),  # and not much better
        (3.0, (2.0, 1.5, 1.7), 1, "warn"),
        (3.0, (2.0, 1.5, 1.2, 1.0), 3, "warn"),
        (3.0, (9.0, 9.1, 2.0, 2.5), 2, "warn"),  # as good as its third, and harmful
        (3.0, (math.inf, math.inf, 4.0, 2.9), 3, "warn"),
        (3.0, (9.0, 8.0, 7.0, 7.5), 2, "warn"),  # none lowers it: the least harmful
        (0.0, (0.0, 0.0), 0, "info"),
    ],
)
def test_the_largest_rate_is_taken_that_is_about_as_good_as_its_third(
    before: float, after: tuple[float, ...], chosen: int, level: str
) -> None:
    trial, watcher = Losses(before, *after), Watcher()
    found = base_rate._tried(trial, Rates(0.81, 0.1, 0.2), watcher)  # type: ignore[arg-type]
    assert trial.rates == pytest.approx([0.81 / 3**number for number in range(len(after))])
    assert found == Rates(trial.rates[chosen], 0.1, 0.2)
    ((told_level, said),) = watcher.events
    assert told_level == level
    assert said.startswith(f"learning rate {trial.rates[chosen]:.3g}: ")
    assert ("none of them lowers it" in said) == (min(after) > before)


@pytest.fixture
def wild(monkeypatch: pytest.MonkeyPatch) -> float:
    """SHiRA with a preset's rate a thousand times its own, and no bound to it."""
    rate = 1e3 * PRESETS["shira"].rate
    monkeypatch.setitem(PRESETS, "shira", Preset(rate, {"r": 1}, most=1e9))  # type: ignore[arg-type]
    return rate


def test_a_rate_that_raises_the_loss_is_lowered_after_a_few_counted_steps(
    wild: float, files: JobFiles, tmp_path: Path
) -> None:
    base = lm_base()
    spec = job(base, method="shira", method_config={})
    runs = []
    for name in ("first", "again"):
        watcher = Watcher()
        done = run_job(spec, base, files, tmp_path / name, watcher)
        ((level, said),) = told(watcher, "learning rate")
        runs.append((said, files_of(tmp_path / name)))
    assert runs[0] == runs[1]
    assert level == "warn"
    rate = done.details["learning_rates"]["coefficients"]
    assert rate < wild / 2
    assert f"learning rate {rate:.3g}" in said
    assert "steps of trial for a run of 14" in said


def test_a_job_that_dies_keeps_the_rate_that_was_found(
    wild: float, files: JobFiles, tmp_path: Path
) -> None:
    base = lm_base()
    spec = job(base, method="shira", method_config={})
    run_job(spec, base, files, tmp_path / "whole", Watcher())
    for died in range(3, 20, 4):  # in the trials, and behind them
        folder = tmp_path / str(died)
        with pytest.raises(Killed):
            run_job(spec, base, files, folder, Watcher(disturb=killing_at(died)))
        run_job(spec, base, files, folder, Watcher())
        assert files_of(folder) == files_of(tmp_path / "whole")


def test_a_jobs_own_rate_is_neither_bounded_nor_tried(
    wild: float, thin_base: LoadedBase, files: JobFiles, tmp_path: Path
) -> None:
    watcher = Watcher()
    spec = job(thin_base, method="shira", method_config={}, learning_rate=0.25, max_steps=2)
    done = run_job(spec, thin_base, files, tmp_path, watcher)
    assert done.details["learning_rates"]["coefficients"] == 0.25
    assert told(watcher, "learning rate") == []
    assert not (tmp_path / "rate.json").exists()


def test_a_trial_leaves_nothing_behind(files: JobFiles, tmp_path: Path) -> None:
    """The run after a trial is the run at that rate without one."""
    base = lm_base()
    tried = run_job(
        job(base, method="shira", method_config={}), base, files, tmp_path / "a", Watcher()
    )
    rates: dict[str, Any] = json.loads((tmp_path / "a" / "rate.json").read_text())
    (rate,) = rates.values()
    own = job(base, method="shira", method_config={}, learning_rate=rate)
    run_job(own, base, files, tmp_path / "b", Watcher())
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert tried.details["learning_rates"]["coefficients"] == rate
