"""The gradients of one optimiser step, summed over the ranks that share it."""

from dataclasses import dataclass

import torch

from registry.jobs.spec import Hyperparameters
from trainer.training.data import Examples
from trainer.training.precision import autocast
from trainer.training.ranks import Ranks
from trainer.training.schedule import Schedule, mixed
from trainer.training.trainable import TrainableAdapter


@dataclass(frozen=True)
class Gradients:
    """What each rank of a job holds, so that a step's number alone determines its work.

    Args:
        trainable: what is trained.
        train: examples to learn from.
        schedule: of the steps.
        hyper: of the job.
        ranks: the processes that share a step's examples.
    """

    trainable: TrainableAdapter
    train: Examples
    schedule: Schedule
    hyper: Hyperparameters
    ranks: Ranks

    def add(self, step: int) -> tuple[float, int]:
        """Add up the gradients of a step's examples; return their mean loss and tokens.

        The first rank has the sum afterwards, divided by the number of all ranks' targets.

        Raises:
            RankLost: another rank does not answer.
        """
        ranks, numbers = self.ranks, self.schedule.examples(step)
        trained = [one.tensor for one in self.trainable.trained_tensors()]
        ranks.open(step, trained)
        torch.manual_seed(ranks.seed(mixed(self.schedule.seed, step)))  # the base's dropout
        # A forward pass has at most as many examples as without other ranks, and no more memory.
        size = -(-len(numbers) // self.hyper.gradient_accumulation)
        loss, count, num_tokens = self._backward(ranks.share(numbers), size)
        loss, num_tokens = ranks.sum(trained, loss, num_tokens)
        return loss / count, num_tokens

    def _backward(self, numbers: list[int], size: int) -> tuple[float, int, int]:
        """Return the summed loss of some examples, the divisor of all ranks, and tokens."""
        trainable, task, model = self.trainable, self.trainable.task, self.trainable.model.train()
        examples = [self.train[number] for number in numbers]
        count = self.ranks.total(sum(example.num_trained for example in examples))
        total, num_tokens = 0.0, 0
        for start in range(0, len(examples), size):
            batch = task.batch(examples[start : start + size], trainable.base.device)
            with autocast(model):
                loss, _ = task.loss(model, batch)
            (loss / count).backward()
            total, num_tokens = total + float(loss.detach()), num_tokens + batch.num_tokens
        own = trainable.plan.regulariser() if self.ranks.number == 0 else None
        if own is not None:
            own.backward()
        return total, count, num_tokens
