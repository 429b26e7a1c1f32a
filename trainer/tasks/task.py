"""The interface of a task: from records to examples, batches, losses and metrics."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from registry.jobs.samples import Ending


@dataclass(frozen=True)
class Example:
    """One example, ready for a model.

    Args:
        ids: tokens; empty for images.
        targets: of a causal LM, the token that each position predicts, -100 for none.
        label: a class by its name, or the number to predict.
        pixels: float32 `[channels, height, width]`.
        num_cut: tokens that were cut off.
        starts: of a causal LM, the positions in `ids` at which its texts begin.
        note: the answer that the base's tokenizer cannot reproduce, and its own form of it.
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
        """Return the number of tokens."""
        return max(1, len(self.ids))

    @property
    def num_trained(self) -> int:
        """Return the number of targets in the loss."""
        return sum(target >= 0 for target in self.targets) if self.targets else 1


@dataclass(frozen=True)
class Question:
    """What a sample asks.

    Args:
        prompt: in words.
        expected: the file's answer, in words.
        given: what the task needs to answer it.
    """

    prompt: str
    expected: str
    given: Any


@dataclass(frozen=True)
class TextLimits:
    """The texts that a base takes.

    Args:
        max_length: the most tokens of a text, those that the tokenizer adds included.
        cuts: whether longer ones are cut; else they are refused.
        vocabulary: rows of its embedding; None does not check tokens.
        border: longer texts have other rotations; None: all have the same.
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
                "max_length to cut it"
            )
        unknown = [token for token in ids if self.vocabulary and token >= self.vocabulary]
        if unknown:
            raise ValueError(
                f"has a token that the base cannot read: id {unknown[0]}, where its vocabulary "
                f"has {self.vocabulary}; remove that text, or use the base's own tokenizer"
            )


@dataclass(frozen=True)
class Batch:
    """Several examples: the model's inputs, the expected outputs, and the number of tokens."""

    inputs: Mapping[str, Tensor]
    expected: Tensor
    num_tokens: int


@dataclass
class Score:
    """The sums of an evaluation over its batches.

    Args:
        loss: of all batches.
        count: its divisor for the mean.
        predicted, expected: of classification and regression, on the CPU.
    """

    loss: float = 0.0
    count: int = 0
    predicted: list[Tensor] = field(default_factory=list)
    expected: list[Tensor] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Return the mean loss of a token or example."""
        return self.loss / max(1, self.count)


class TrainingTask(ABC):
    """One kind of training, made for one base and one job."""

    #: PEFT's name of the task, for adapter_config.json.
    peft_task: ClassVar[str | None] = None

    @abstractmethod
    def example(self, row: Mapping[str, Any]) -> Example:
        """Return the example of a record.

        Raises:
            ValueError: it does not fit the task or the base; the message says why.
        """

    @abstractmethod
    def batch(self, examples: Sequence[Example], device: torch.device) -> Batch:
        """Return one batch of the examples."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed loss of all targets, and the model's logits for them."""

    @abstractmethod
    def collect(self, score: Score, loss: Tensor, logits: Tensor, batch: Batch) -> None:
        """Add a batch of an evaluation to `score`."""

    @abstractmethod
    def metrics(self, score: Score) -> dict[str, float]:
        """Return the metrics of an evaluation by name."""

    @abstractmethod
    def question(self, row: Mapping[str, Any]) -> Question | None:
        """Return what a sample asks of a record; None if nothing can be asked.

        Raises:
            ValueError: as `example`.
        """

    @abstractmethod
    def answer(
        self,
        model: nn.Module,
        question: Question,
        device: torch.device,
        goes_on: Callable[[], bool],
    ) -> tuple[str, Ending]:
        """Return the model's answer in words, and how it ended.

        Args:
            model: in evaluation mode.
            question: made by `question`.
            device: of the model.
            goes_on: asked before each forward pass; after a False there is none.
        """

    @property
    def num_outputs(self) -> int | None:
        """Return the number of rows of the head; None without one."""
        return None

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Return the names of the head's rows, if they have any."""
        return None

    def labels_of(self, found: frozenset[str]) -> tuple[str, ...] | None:
        """Return the labels of a training file in the order of the head's rows.

        Raises:
            InvalidTrainingFile: there are too few of them, or too many.
        """
        return None

    def use_labels(self, labels: tuple[str, ...] | None) -> None:
        """Set the labels; called once, before any batch is made."""
        return  # most tasks have none

    def check_label(self, example: Example, known: Set[str] | None) -> None:
        """Refuse a label of the validation file that the training file does not have.

        Raises:
            ValueError: it is not in `known`.
        """
        return
