"""The loop: what moves at which rate, what a step costs, and what is the same each time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from adapters_core.layers.inject import inject
from registry.jobs.spec import Hyperparameters
from small_jobs import QUICK, Watcher, files_of, job, lm_base, sums
from trainer.base import LoadedBase
from trainer.interfaces import JobFiles
from trainer.tasks.causal_lm import CausalLM
from trainer.tasks.task import TextLimits
from trainer.training.context import JobContext
from trainer.training.data import Data, Facts
from trainer.training.presets import setting_of
from trainer.training.run import run_job
from trainer.training.train import Trainer
from trainer.training.trainable import TrainableAdapter


class Listed(list[Any]):
    """Examples that are in memory."""


def trainer_of(
    base: LoadedBase, folder: Path, method: str = "loca", **changes: Any
) -> tuple[Trainer, TrainableAdapter]:
    hyper = Hyperparameters(**{"n_epochs": 50, "batch_size": 4, "warmup_ratio": 0.0} | changes)
    task = CausalLM(tiny.tokenizer(), TextLimits(100), True)
    examples = Listed(task.example({"text": text * 3}) for text in ("ab", "cd", "ef", "gh"))
    setting = setting_of(method, {}, hyper, base.spec)
    trainable = TrainableAdapter(base, setting, task, seed=0)
    facts = Facts("sha256:0", len(examples), len(examples), 0, 0, 0, 0, None)
    data = Data(examples, examples, facts)  # type: ignore[arg-type]
    spec = replace(job(base), hyperparameters=hyper)
    context = JobContext(spec, base, task, data, folder, Watcher())
    return Trainer(context, trainable, setting.rates, fits={}), trainable


def values_of(trainable: TrainableAdapter) -> dict[str, torch.Tensor]:
    return {one.name: one.tensor.detach().clone() for one in trainable.trained_tensors()}


def test_learned_positions_take_turns_by_optimiser_steps_whatever_the_accumulation(
    base: LoadedBase, tmp_path: Path
) -> None:
    for accumulation in (1, 2):
        folder = tmp_path / str(accumulation)
        folder.mkdir()
        trainer, trainable = trainer_of(
            base, folder, gradient_accumulation=accumulation, n_epochs=300
        )
        try:
            moved = []
            for _ in range(12):
                before = values_of(trainable)
                trainer._step()
                after = values_of(trainable)
                moved.append(
                    {n.rpartition("_")[2] for n in before if not torch.equal(before[n], after[n])}
                )
        finally:
            trainable.undo()
        assert moved == [{"spectrum"}] * 10 + [{"positions"}] * 2


def test_roles_have_rates_of_their_own_and_positions_do_not_decay(
    base: LoadedBase, tmp_path: Path
) -> None:
    trainer, trainable = trainer_of(
        base, tmp_path, learning_rate=0.5, location_learning_rate=0.25, weight_decay=0.1
    )
    trainable.undo()
    groups = [(g["peak"], g["weight_decay"]) for g in trainer._optimizer.param_groups]
    assert sorted(groups) == [(0.25, 0.0), (0.5, 0.1)]


def test_gradients_are_clipped_and_their_norm_is_reported_from_before(
    base: LoadedBase, tmp_path: Path
) -> None:
    trainer, trainable = trainer_of(base, tmp_path, "lora", max_grad_norm=1e-3)
    try:
        trainer._gradients.add(0)
        told = trainer._clipped()
        grads = [
            one.tensor.grad for one in trainable.trained_tensors() if one.tensor.grad is not None
        ]
        norm = float(torch.stack([grad.norm() for grad in grads]).norm())
    finally:
        trainable.undo()
    assert told > 1e-2
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_a_fresh_adapter_computes_what_the_base_computes_and_leaves_it_alone(
    base: LoadedBase, tmp_path: Path
) -> None:
    ids = torch.arange(12)[None]
    expected = base.model(input_ids=ids).logits
    _, trainable = trainer_of(base, tmp_path, "fourierft")
    try:
        assert torch.allclose(base.model(input_ids=ids).logits, expected, atol=1e-6)
        kinds = {type(module).__name__ for module in base.model.modules()}
        assert "AdaptedLinear" in kinds
    finally:
        trainable.undo()
        trainable.undo()
    assert torch.equal(base.model(input_ids=ids).logits, expected)
    inject(base.model).undo()


def test_a_regulariser_is_part_of_the_gradient(base: LoadedBase, tmp_path: Path) -> None:
    trainer, trainable = trainer_of(base, tmp_path, "clora")
    try:
        trainer._gradients.add(0)
        own = trainable.plan.regulariser()
        assert own is not None
        downs = [one for one in trainable.trained_tensors() if "down" in one.name]
        # Maps are zero at first: the spaces' only gradient is the regulariser's.
        assert all(one.tensor.grad is not None and one.tensor.grad.any() for one in downs)
    finally:
        trainable.undo()


def test_a_base_with_dropout_resumes_exactly(tmp_path: Path) -> None:
    base = lm_base("gpt2")
    assert base.model.config.attn_pdrop > 0  # type: ignore[union-attr]
    files = JobFiles(sums(tmp_path / "sums.jsonl", 12))
    spec = job(base)
    run_job(spec, base, files, tmp_path / "whole", Watcher())
    with pytest.raises(Exception, match="stop"):
        run_job(spec, base, files, tmp_path / "cut", Watcher(_stopping_at(7)))
    torch.manual_seed(12345)
    run_job(spec, base, files, tmp_path / "cut", Watcher())
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def _stopping_at(number: int) -> Any:
    def disturb(asked: int) -> Any:
        if asked == number:
            raise RuntimeError("stop")
        return "go"

    return disturb


def test_a_run_does_not_resume_from_a_checkpoint_of_another_setting(
    base: LoadedBase, tmp_path: Path
) -> None:
    files = JobFiles(sums(tmp_path / "sums.jsonl", 12))
    with pytest.raises(RuntimeError):
        run_job(job(base), base, files, tmp_path / "job", Watcher(_stopping_at(12)))
    assert list((tmp_path / "job" / "checkpoints").iterdir())
    watcher = Watcher()
    run_job(job(base, learning_rate=0.01), base, files, tmp_path / "job", watcher)
    assert not any("going on" in message for _, message in watcher.events)


def test_time_makes_a_checkpoint_too(base: LoadedBase, tmp_path: Path) -> None:
    files = JobFiles(sums(tmp_path / "sums.jsonl", 12))
    watcher = Watcher()
    spec = job(base, checkpoint_every_steps=1000, checkpoint_every_s=0.0)
    done = run_job(spec, base, files, tmp_path / "job", watcher)
    assert [step for step, _ in watcher.checkpoints] == list(range(1, done.steps))


def test_a_job_evaluates_on_its_way(base: LoadedBase, tmp_path: Path) -> None:
    files = JobFiles(sums(tmp_path / "sums.jsonl", 12))
    watcher = Watcher()
    done = run_job(job(base, eval_every=2), base, files, tmp_path / "job", watcher)
    evaluated = [step for step, values in watcher.values if "eval_loss" in values]
    assert evaluated == [0, *range(2, done.steps, 2), done.steps]
    assert QUICK.eval_every is None
