"""The metrics of a model on the held-out examples."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from registry.examples.scores import finite
from registry.jobs.spec import Hyperparameters
from trainer.tasks.task import Batch, Example, Score
from trainer.training.data import Examples
from trainer.training.precision import autocast
from trainer.training.trainable import TrainableAdapter

#: Examples of one forward pass, unless a training pass has fewer.
EVAL_BATCH = 32


def evaluation_batch(hyper: Hyperparameters) -> int:
    """Return the examples of one forward pass of an evaluation; at most those of a training pass.

    So an evaluation needs no more memory than training does.
    """
    return min(EVAL_BATCH, -(-hyper.batch_size // hyper.gradient_accumulation))


@torch.no_grad()
def evaluate(
    trainable: TrainableAdapter,
    examples: Examples,
    batch_size: int,
    still_wanted: Callable[[], None],
) -> dict[str, float]:
    """Return the task's metrics of the adapter as it is.

    Args:
        trainable: left in evaluation mode.
        examples: held out.
        batch_size: examples of one forward pass.
        still_wanted: called before each batch; an exception of it ends the evaluation.
    """
    task, score = trainable.task, Score()
    for some in examples.batches(batch_size):
        still_wanted()
        batch, loss, logits = _forward(trainable, some)
        task.collect(score, loss, logits, batch)
    return {name: finite(value) for name, value in task.metrics(score).items()}


@torch.no_grad()
def rehearse(trainable: TrainableAdapter, examples: Examples, batch_size: int) -> None:
    """Evaluate one batch and drop the result.

    Code that an evaluation loads or compiles is then ready for the one after training.
    """
    _forward(trainable, next(examples.batches(batch_size)))


def _forward(trainable: TrainableAdapter, some: Sequence[Example]) -> tuple[Batch, Tensor, Tensor]:
    model, task = trainable.model.eval(), trainable.task
    batch = task.batch(some, trainable.base.device)
    with autocast(model):
        return batch, *task.loss(model, batch)
