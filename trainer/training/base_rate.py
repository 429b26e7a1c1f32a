"""A preset's rate on this very base: bounded by what a step adds to a weight, and tried out.

A preset's rate was found on other bases. Where the update consists of the base's own weights (FRoD)
or the base is of another kind, the same rate may move a weight by more than the weight itself. So
the rate is first lowered until a step adds at most the preset's share of any weight's spectral
norm, and then tried: a few steps at the full rate from the fresh start, and as many at a third of
it. Where the loss is larger than before, or the third leaves a much smaller one, the third is
compared with its own in the same way. The loss is that of the last step's examples and of those
that come next: a rate that is too large may lower the one and raise the other.

A rate in the job's own settings is used as it is; a multiple in them is of the bounded rate, and
is not tried.
"""

import json
import math
from dataclasses import replace

import torch
from torch import Tensor

from trainer.checkpoint import write_whole
from trainer.interfaces import Reporter
from trainer.training.context import JobContext
from trainer.training.gradients import Gradients
from trainer.training.optimizer import optimizer_of
from trainer.training.precision import autocast
from trainer.training.preset_values import PLAIN, PRESETS
from trainer.training.presets import Rates, Setting
from trainer.training.ranks import Ranks
from trainer.training.trainable import TrainableAdapter

#: The steps of a trial: the run's divided by the first, within the next two; the most trials.
_PART, _LEAST, _MOST, _TRIALS = 20, 1, 4, 4
_LOWER = 3.0
#: A loss up to this factor larger counts as equal.
_SAME = 1.02
#: A lower rate is taken for a loss that is smaller by this factor. By less it is no better in the
#: end: a long run makes good what its first steps are too large for, if they are not by much.
_MUCH = 1.1
#: The steps after a trial that judge it with their examples, beside its last one.
_NEXT = 2
#: Layers of each name whose weights are measured, spread over the base's depth.
_MEASURED = 3
_ITERATIONS = 12


def rates_for(job: JobContext, trainable: TrainableAdapter, setting: Setting) -> Rates:
    """Return the rates that a job is trained with; found once and then kept in its folder.

    Args:
        job: reports what was changed in the rate.
        trainable: fresh; as fresh afterwards.
        setting: of the job.
    """
    if job.hyper.learning_rate is not None or not trainable.trained_tensors():
        return setting.rates
    path = job.folder / "rate.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    name = f"{setting.method.name} {setting.rates.coefficients!r}"
    if name not in known:
        times = job.hyper.learning_rate_multiplier
        preset = replace(setting.rates, coefficients=setting.rates.coefficients / times)
        rates = _bounded(trainable, replace(setting, rates=preset), job.report)
        if setting.is_preset:
            rates = _tried(_Trial(job, trainable), rates, job.report)
        known[name] = rates.coefficients * times
        write_whole(path, json.dumps(known).encode())
    return replace(setting.rates, coefficients=known[name])


def _bounded(trainable: TrainableAdapter, setting: Setting, report: Reporter) -> Rates:
    """Return the rates with a step that adds no more to a weight than the preset allows."""
    trained = [one for one in trainable.trained_tensors() if one.role == "coefficients"]
    count = sum(one.tensor.numel() for one in trained)
    most = PRESETS.get(setting.method.name, PLAIN).most_on(count)
    rate = setting.rates.coefficients
    shares = {path: _share(trainable, path, rate) for path in _measured(setting.targets)}
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


def _measured(targets: list[str]) -> list[str]:
    """Return the first, the middle and the last layer of each name."""
    names: dict[str, list[str]] = {}
    for path in targets:
        names.setdefault(path.rpartition(".")[2], []).append(path)
    found = []
    for paths in names.values():
        last = len(paths) - 1
        found += [paths[number * last // (_MEASURED - 1)] for number in range(_MEASURED)]
    return list(dict.fromkeys(found))


def _share(trainable: TrainableAdapter, path: str, rate: float) -> float:
    """Return the spectral norm of one step's update of a layer, over that of its weight."""
    step = trainable.plan.step_of(path, rate, torch.Generator().manual_seed(0))
    weight = trainable.weight(path).float()
    return _spectral(step.float()) / max(_spectral(weight), torch.finfo(torch.float32).tiny)


@torch.no_grad()
def _spectral(matrix: Tensor) -> float:
    """Return a lower bound near the largest singular value of `[M, N]`, by power iteration."""
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
    """A few steps from the fresh start at a rate, and the loss after them."""

    def __init__(self, job: JobContext, trainable: TrainableAdapter) -> None:
        self.of_all = job.schedule.num_steps
        self.num_steps = max(_LEAST, min(_MOST, self.of_all // _PART))
        self._job, self._trainable = job, trainable
        self._trained = trainable.trained_tensors()
        self._fresh = [one.tensor.detach().clone() for one in self._trained]
        steps = range(self.num_steps - 1, self.num_steps + _NEXT)
        self._judges = [number for step in steps for number in job.schedule.examples(step)]

    def loss(self) -> float:
        """Return the loss of the last and of the next steps' examples with the adapter as it is."""
        trainable, task = self._trainable, self._trainable.task
        model, size = trainable.model.eval(), self._job.evaluation_batch
        examples = [self._job.data.train[number] for number in self._judges]
        total = 0.0
        for start in range(0, len(examples), size):
            batch = task.batch(examples[start : start + size], trainable.base.device)
            with torch.no_grad(), autocast(model):
                total += float(task.loss(model, batch)[0])
        value = total / max(1, sum(example.num_trained for example in examples))
        return value if math.isfinite(value) else math.inf

    def run(self, rates: Rates) -> float:
        """Return the loss after the steps; the adapter is as fresh as before."""
        job = self._job
        gradients = Gradients(self._trainable, job.data.train, job.schedule, job.hyper, Ranks())
        optimizer = optimizer_of(self._trained, rates, job.hyper.weight_decay)
        try:
            for step in range(self.num_steps):
                job.check_wanted()
                gradients.add(step)
                self._step(step, optimizer)
            return self.loss()
        finally:
            optimizer.zero_grad()
            with torch.no_grad():
                for one, fresh in zip(self._trained, self._fresh, strict=True):
                    one.tensor.copy_(fresh)

    def _step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Apply the gradients at the peak rates."""
        self._trainable.plan.freeze_scheduled(step, self.of_all)
        most = self._job.hyper.max_grad_norm or math.inf
        torch.nn.utils.clip_grad_norm_([one.tensor for one in self._trained], most)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"]
        optimizer.step()
        optimizer.zero_grad()


def _tried(trial: _Trial, rates: Rates, report: Reporter) -> Rates:
    """Return the rates with the first of a few rates that a third of it does not improve on."""
    before = trial.loss()
    found = list[tuple[float, float]]()
    for number in range(_TRIALS):
        rate = float(f"{rates.coefficients / _LOWER**number:.3g}") if number else rates.coefficients
        found.append((trial.run(replace(rates, coefficients=rate)), rate))
        if number and _suffices(found, before):
            break
    _, rate = found[-2] if _suffices(found, before) else min(found)
    _report(trial, before, found, rate, report)
    return replace(rates, coefficients=rate)


def _suffices(found: list[tuple[float, float]], before: float) -> bool:
    """Return whether the last rate but one does no harm, and is about as good as its third."""
    (loss, _), (lower, _) = found[-2:]
    return loss <= min(_SAME * before, _MUCH * lower)


def _report(
    trial: _Trial, before: float, found: list[tuple[float, float]], rate: float, report: Reporter
) -> None:
    """Report the losses after each rate's trial, and the rate that was chosen."""
    is_lower = min(found)[0] <= _SAME * before
    losses = ", ".join(f"{tried:.3g}: {loss:.3f}" for loss, tried in found)
    report.event(
        "info" if is_lower and rate == found[0][1] else "warn",
        f"learning rate {rate:.3g}: {trial.num_steps * len(found)} steps of trial for a run of "
        f"{trial.of_all}; loss {before:.3f} before, after {trial.num_steps} at each rate: {losses}"
        + ("" if is_lower else "; none of them lowers it"),
        {
            "loss_before": before,
            "steps": trial.num_steps,
            "trials": [{"learning_rate": tried, "loss": _json(loss)} for loss, tried in found],
        },
    )


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None
