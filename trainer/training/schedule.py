"""The steps of a job: their number, their examples, and their share of the peak rate."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from registry.jobs.samples import MAX_SAMPLES
from registry.jobs.spec import Hyperparameters
from trainer.errors import InvalidHyperparameter

_INTEGERS: Mapping[str, tuple[float, float]] = {
    "n_epochs": (1, 1000),
    "max_steps": (1, 10_000_000),
    "batch_size": (1, 4096),
    "gradient_accumulation": (1, 4096),
    "max_length": (2, 1 << 20),
    "early_stopping_patience": (1, 1000),
    "eval_every": (1, 10_000_000),
    "checkpoint_every_steps": (1, 10_000_000),
    "checkpoint_samples": (0, MAX_SAMPLES),
}
_NUMBERS: Mapping[str, tuple[float, float]] = {
    "warmup_ratio": (0.0, 1.0),
    "weight_decay": (0.0, 10.0),
    "max_grad_norm": (0.0, 1e6),
    "checkpoint_every_s": (0.0, 1e9),
}
#: These may be None.
_OPTIONAL = frozenset(("max_steps", "max_length", "eval_every", "early_stopping_patience"))


@dataclass(frozen=True)
class Schedule:
    """The steps of one job; all follow from the seed, so a resumed job repeats them.

    Args:
        num_examples: of the training data.
        batch_size: examples of one step; an epoch's last may have fewer.
        num_steps: of the whole job.
        num_warmup: of these, with a rising rate.
        shape: of the rate after that.
        seed: of the order of the examples.
    """

    num_examples: int
    batch_size: int
    num_steps: int
    num_warmup: int
    shape: str
    seed: int

    @property
    def epoch_steps(self) -> int:
        """Return the steps of one epoch."""
        return -(-self.num_examples // self.batch_size)

    def examples(self, step: int) -> list[int]:
        """Return the numbers of the examples of the step 0..num_steps - 1."""
        epoch, within = divmod(step, self.epoch_steps)
        order = _order(self.seed, epoch, self.num_examples)
        return order[within * self.batch_size : (within + 1) * self.batch_size].tolist()

    def share(self, step: int) -> float:
        """Return the share of the peak rate at the step 0..num_steps - 1; never zero."""
        if step < self.num_warmup:
            return (step + 1) / self.num_warmup
        left = (self.num_steps - step) / (self.num_steps - self.num_warmup)
        if self.shape == "cosine":
            return 0.5 - 0.5 * math.cos(math.pi * left)
        return left if self.shape == "linear" else 1.0


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, num_examples: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(mixed(seed, epoch))
    return torch.randperm(num_examples, generator=generator)


def schedule_of(hyper: Hyperparameters, num_examples: int, seed: int) -> Schedule:
    """Return the steps of a job.

    Raises:
        InvalidHyperparameter: a number is out of range.
    """
    check(hyper)
    batch = min(hyper.batch_size, num_examples)
    num_steps = hyper.n_epochs * -(-num_examples // batch)
    if hyper.max_steps is not None:
        num_steps = min(num_steps, hyper.max_steps)
    # The last step is never one of warm-up, so that the share above is defined.
    num_warmup = min(math.ceil(hyper.warmup_ratio * num_steps), num_steps - 1)
    return Schedule(num_examples, batch, num_steps, num_warmup, hyper.schedule, seed)


def check(hyper: Hyperparameters) -> None:
    """Check the hyper-parameters' ranges.

    Raises:
        InvalidHyperparameter: with the name, its value and its range.
    """
    for name, bounds in _INTEGERS.items():
        _check_range(hyper, name, bounds, int, "an integer")
    for name, bounds in _NUMBERS.items():
        _check_range(hyper, name, bounds, int | float, "a number")
    if hyper.schedule not in ("linear", "cosine", "constant"):
        message = f"schedule = {hyper.schedule!r}: give linear, cosine or constant"
        raise InvalidHyperparameter(message, "schedule")
    if hyper.gradient_accumulation > hyper.batch_size:
        raise InvalidHyperparameter(
            f"gradient_accumulation = {hyper.gradient_accumulation} forward passes for a "
            f"batch_size of {hyper.batch_size}: at most one for each example",
            "gradient_accumulation",
        )


def _check_range(
    hyper: Hyperparameters, name: str, bounds: tuple[float, float], kinds: Any, what: str
) -> None:
    value, (low, high) = getattr(hyper, name), bounds
    if value is None and name in _OPTIONAL:
        return
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        message = f"{name} = {value!r}: {what} from {low} to {high} is needed"
        raise InvalidHyperparameter(message, name)


def mixed(seed: int, number: int) -> int:
    """Return a seed for each number, the same on every machine."""
    state = (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + 1) & (2**64 - 1)
    state = ((state ^ (state >> 31)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (state ^ (state >> 29)) & (2**63 - 1)
