"""A preset's rate on this very base: bounded by what a step adds to a weight, and tried out.

A preset's rate was found on other bases. Where the update is made of the base's own weights (FRoD)
or the base is of another kind, the same rate may move a weight by more than the weight itself. So
the rate is first lowered until a step adds at most the preset's share of any weight's spectral
norm, and then tried: a few steps at the full rate from the fresh start, after which the loss on
the last step's own examples must not be larger than before. Else a third of it is tried.

A rate that the job gives itself is used as it is.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from registry.jobs.spec import Hyperparameters
from trainer.checkpoint import write_whole
from trainer.interfaces import Reporter
from trainer.training.data import Examples
from trainer.training.evaluate import at_once
from trainer.training.gradients import Gradients
from trainer.training.optimizer import optimizer_of
from trainer.training.precision import autocast
from trainer.training.preset_values import PLAIN, PRESETS
from trainer.training.presets import Rates, Setting
from trainer.training.ranks import Ranks
from trainer.training.schedule import Schedule
from trainer.training.trainable import TrainableAdapter

#: A trial takes this part of the run's steps, within these bounds; at most so many are made.
_PART, _LEAST, _MOST, _TRIALS = 20, 1, 4, 4
_LOWER = 3.0
#: A loss that is larger by no more is taken for the same.
_SAME = 1.02
#: Weights of layers of one name that are looked at, spread over the base's depth.
_LOOKED_AT = 3
_ITERATIONS = 12


@dataclass(frozen=True)
class Course:
    """What a run trains on, and how.

    Args:
        train: examples to learn from.
        schedule: of the job's steps.
        hyper: of the job.
        still_wanted: asked before each step; what it raises ends the trials.
    """

    train: Examples
    schedule: Schedule
    hyper: Hyperparameters
    still_wanted: Callable[[], None]


def rate_for(
    trainable: TrainableAdapter, setting: Setting, course: Course, folder: Path, report: Reporter
) -> Rates:
    """Return the rates that a job is trained with; found once and then kept in its folder.

    Args:
        trainable: fresh; as fresh afterwards.
        setting: of the job.
        course: of the run.
        folder: the job's own.
        report: hears what was done to the rate.
    """
    if course.hyper.learning_rate is not None or not trainable.moved():
        return setting.rates
    path = folder / "rate.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    name = f"{setting.method.name} {setting.rates.coefficients!r}"
    if name not in known:
        rates = _bounded(trainable, setting, report)
        if setting.is_preset:
            trial = _Trial(trainable, course)
            rates = _tried(trial, rates, report)
        known[name] = rates.coefficients
        write_whole(path, json.dumps(known).encode())
    return replace(setting.rates, coefficients=known[name])


def _bounded(trainable: TrainableAdapter, setting: Setting, report: Reporter) -> Rates:
    """Return the rates with a step that adds no more to a weight than the preset allows."""
    most = PRESETS.get(setting.method.name, PLAIN).most
    rate = setting.rates.coefficients
    shares = {path: _share(trainable, path, rate) for path in _some(setting.targets)}
    worst = max(shares, key=lambda path: shares[path])
    if shares[worst] <= most:
        return setting.rates
    lower = float(f"{rate * most / shares[worst]:.3g}")
    report.event(
        "info",
        f"learning rate {lower:.3g} for the preset's {rate:.3g}: a step of that would add "
        f"{shares[worst]:.0%} of its norm to the weight of {worst}, and {most:.0%} is the most",
        {"learning_rate": lower, "preset": rate, "share": shares[worst], "layer": worst},
    )
    return replace(setting.rates, coefficients=lower)


def _some(targets: list[str]) -> list[str]:
    """Return the first, the middle and the last layer of each name."""
    names: dict[str, list[str]] = {}
    for path in targets:
        names.setdefault(path.rpartition(".")[2], []).append(path)
    found = []
    for paths in names.values():
        last = len(paths) - 1
        found += [paths[number * last // (_LOOKED_AT - 1)] for number in range(_LOOKED_AT)]
    return list(dict.fromkeys(found))


def _share(trainable: TrainableAdapter, path: str, rate: float) -> float:
    """Return the spectral norm of what a step adds to a layer, over that of its weight."""
    step = trainable.plan.step_of(path, rate, torch.Generator().manual_seed(0))
    weight = trainable.weight(path).float()
    return _spectral(step.float()) / max(_spectral(weight), torch.finfo(torch.float32).tiny)


@torch.no_grad()
def _spectral(matrix: Tensor) -> float:
    """Return about the largest singular value of `[M, N]`, by power iteration; never more."""
    start = torch.randn(matrix.shape[1], generator=torch.Generator().manual_seed(0))
    right = (start / start.norm()).to(matrix.device)
    size = 0.0
    for _ in range(_ITERATIONS):
        left = matrix @ right
        size = float(left.norm())
        right = matrix.T @ left
        right = right / right.norm().clamp_min(torch.finfo(torch.float32).tiny)
    return size


class _Trial:
    """A few steps from the fresh start at a rate, and what they make of the loss."""

    def __init__(self, trainable: TrainableAdapter, course: Course) -> None:
        self.of_all = course.schedule.num_steps
        self.num_steps = max(_LEAST, min(_MOST, self.of_all // _PART))
        self._trainable, self._course = trainable, course
        self._moved = trainable.moved()
        self._fresh = [one.tensor.detach().clone() for one in self._moved]
        self._seen = course.schedule.examples(self.num_steps - 1)

    def loss(self) -> float:
        """Return the loss of the last step's examples, as the adapter is now."""
        trainable, task = self._trainable, self._trainable.task
        model, size = trainable.model.eval(), at_once(self._course.hyper)
        examples = [self._course.train[number] for number in self._seen]
        total = 0.0
        for start in range(0, len(examples), size):
            batch = task.batch(examples[start : start + size], trainable.base.device)
            with torch.no_grad(), autocast(model):
                total += float(task.loss(model, batch)[0])
        value = total / max(1, sum(example.num_trained for example in examples))
        return value if math.isfinite(value) else math.inf

    def run(self, rates: Rates) -> float:
        """Return the loss after the steps; the adapter is as fresh as before."""
        trainable, course = self._trainable, self._course
        gradients = Gradients(trainable, course.train, course.schedule, course.hyper, Ranks())
        optimizer = optimizer_of(self._moved, rates, course.hyper.weight_decay)
        tensors = [one.tensor for one in self._moved]
        try:
            for step in range(self.num_steps):
                course.still_wanted()
                gradients.add(step)
                trainable.plan.freeze_scheduled(step, self.of_all)
                most = course.hyper.max_grad_norm or math.inf
                torch.nn.utils.clip_grad_norm_(tensors, most)
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"]
                optimizer.step()
                optimizer.zero_grad()
            return self.loss()
        finally:
            optimizer.zero_grad()
            with torch.no_grad():
                for one, fresh in zip(self._moved, self._fresh, strict=True):
                    one.tensor.copy_(fresh)


def _tried(trial: _Trial, rates: Rates, report: Reporter) -> Rates:
    """Return the rates with the first of a few rates that does not make the loss larger."""
    before = trial.loss()
    found = list[tuple[float, float]]()
    for number in range(_TRIALS):
        rate = float(f"{rates.coefficients / _LOWER**number:.3g}") if number else rates.coefficients
        after = trial.run(replace(rates, coefficients=rate))
        found.append((after, rate))
        if after <= _SAME * before:
            break
    after, rate = min(found) if found[-1][0] > _SAME * before else found[-1]
    said: dict[str, Any] = {"loss_before": before, "steps": trial.num_steps}
    said["trials"] = [{"learning_rate": r, "loss": _json(loss)} for loss, r in found]
    shown = ", ".join(f"{r:.3g}: {loss:.3f}" for loss, r in found)
    report.event(
        "info" if after <= _SAME * before and len(found) == 1 else "warn",
        f"learning rate {rate:.3g}: {trial.num_steps * len(found)} steps of trial for a run of "
        f"{trial.of_all}; loss {before:.3f} before, after {trial.num_steps} at each rate: {shown}"
        + ("" if after <= _SAME * before else "; none of them lowers it"),
        said,
    )
    return replace(rates, coefficients=rate)


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None
