"""What a task is: how a record becomes an example, examples a batch, and outputs a loss."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Example:
    """One example as a model reads it.

    Args:
        ids: tokens; empty for images.
        targets: of a causal LM, the token that each place is to predict, -100 for none.
        label: a class by its name, or a number to be predicted.
        pixels: float32 `[channels, height, width]`.
        num_cut: tokens that were cut off.
        starts: of a causal LM, where in `ids` each text begins that is read by itself.
        note: which answer the base's tokenizer cannot write as it is, and how it writes it.
    """

    ids: Sequence[int] = ()
    targets: Sequence[int] = ()
    label: str | float | None = None
    pixels: Tensor | None = None
    num_cut: int = 0
    starts: Sequence[int] = (0,)
    note: str = ""

    @property
    def num_tokens(self) -> int:
        """Return how many tokens are read."""
        return max(1, len(self.ids))

    @property
    def num_trained(self) -> int:
        """Return how many numbers of this example enter the loss."""
        return sum(target >= 0 for target in self.targets) if self.targets else 1


@dataclass(frozen=True)
class TextLimits:
    """Which texts a base takes.

    Args:
        max_length: the most tokens of a text, those that the tokenizer adds included.
        cuts: whether longer ones are cut; else they are refused.
        vocabulary: how many tokens its embedding has; None: it is not looked at.
        border: beyond so many tokens a text has other rotations; None: it never has.
    """

    max_length: int
    cuts: bool = False
    vocabulary: int | None = None
    border: int | None = None

    def check(self, ids: Sequence[int]) -> None:
        """Raise ValueError if the base does not take a text of these tokens."""
        if len(ids) > self.max_length and not self.cuts:
            raise ValueError(
                f"has {len(ids)} tokens, the base takes {self.max_length}; shorten it, or set "
                "max_length to cut"
            )
        unknown = [token for token in ids if self.vocabulary and token >= self.vocabulary]
        if unknown:
            raise ValueError(
                f"has a token that the base cannot read: id {unknown[0]}, where its vocabulary "
                f"has {self.vocabulary}; take that text out, or another tokenizer"
            )


@dataclass(frozen=True)
class Batch:
    """Examples together: what the model takes, what is expected, and how many count."""

    inputs: Mapping[str, Tensor]
    expected: Tensor
    num_tokens: int


@dataclass
class Score:
    """What an evaluation collects over its batches.

    Args:
        loss: the sum.
        count: what it is divided by.
        predicted, expected: of classification and regression, on the CPU.
    """

    loss: float = 0.0
    count: int = 0
    predicted: list[Tensor] = field(default_factory=list)
    expected: list[Tensor] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Return the loss of one token or example."""
        return self.loss / max(1, self.count)


class TrainingTask(ABC):
    """One kind of learning; made for one base and one job."""

    #: PEFT's name of it, for adapter_config.json.
    peft_task: ClassVar[str | None] = None

    @abstractmethod
    def example(self, row: Mapping[str, Any]) -> Example:
        """Return a record as the model reads it.

        Raises:
            ValueError: it does not fit the task or the base; the message says why.
        """

    @abstractmethod
    def batch(self, examples: Sequence[Example], device: torch.device) -> Batch:
        """Return the examples as one input of the model."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses of all that counts, and the model's logits for it."""

    @abstractmethod
    def collect(self, score: Score, loss: Tensor, logits: Tensor, batch: Batch) -> None:
        """Take a batch of an evaluation."""

    @abstractmethod
    def metrics(self, score: Score) -> dict[str, float]:
        """Return the metrics of an evaluation by name."""

    @property
    def num_outputs(self) -> int | None:
        """Return how many rows the head has; None without one."""
        return None

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Return the names of the head's rows, if they have any."""
        return None

    def labels_of(self, found: frozenset[str]) -> tuple[str, ...] | None:
        """Return the labels of a training file in the order of the head's rows.

        Raises:
            InvalidTrainingFile: there are too few of them.
        """
        return None

    def use_labels(self, labels: tuple[str, ...] | None) -> None:
        """Learn the labels; called once, before any batch is made."""
        return  # most tasks have none

    def check_label(self, example: Example, known: Set[str] | None) -> None:
        """Refuse a label of the validation file that training does not know.

        Raises:
            ValueError: it is none of `known`.
        """
        return
