"""How well a model does on the held-out examples."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from registry.examples.scores import finite
from registry.job_spec import Hyperparameters
from trainer.tasks.task import LOWER_IS_BETTER, Batch, Example, Score
from trainer.training.data import Examples
from trainer.training.precision import autocast
from trainer.training.trainable import Learner

#: Examples of one forward pass, if a training step's are not fewer.
EVAL_BATCH = 32


def at_once(hyper: Hyperparameters) -> int:
    """Return how many examples an evaluation reads together: what fits in training fits here."""
    return min(EVAL_BATCH, -(-hyper.batch_size // hyper.gradient_accumulation))


@torch.no_grad()
def evaluate(
    learner: Learner, examples: Examples, batch_size: int, still_wanted: Callable[[], None]
) -> dict[str, float]:
    """Return the task's metrics of the learner as it is.

    Args:
        learner: left in evaluation mode.
        examples: held out.
        batch_size: examples of one forward pass.
        still_wanted: asked before each batch; what it raises ends the evaluation.
    """
    task, score = learner.task, Score()
    for some in examples.batches(batch_size):
        still_wanted()
        batch, loss, logits = _answered(learner, some)
        task.collect(score, loss, logits, batch)
    return {name: finite(value) for name, value in task.metrics(score).items()}


@torch.no_grad()
def rehearse(learner: Learner, examples: Examples, batch_size: int) -> None:
    """Evaluate one batch and forget it.

    What an evaluation loads or compiles is there then, when the trained adapter waits for it.
    """
    _answered(learner, next(examples.batches(batch_size)))


def _answered(learner: Learner, some: Sequence[Example]) -> tuple[Batch, Tensor, Tensor]:
    model, task = learner.model.eval(), learner.task
    batch = task.batch(some, learner.base.device)
    with autocast(model):
        return batch, *task.loss(model, batch)


def is_better(metric: str, value: float, than: float) -> bool:
    """Return whether a metric's value is better than another."""
    if math.isnan(value):
        return False
    return math.isnan(than) or (value < than if metric in LOWER_IS_BETTER else value > than)
