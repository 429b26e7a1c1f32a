"""Classification of texts and images, and regression: one label an example."""

import json
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters_core.base.heads import MAX_LABELS
from adapters_core.base.padding import by_length, padded
from adapters_core.tokens.texts import cut, text_ids
from registry.examples.labels import class_of, number_of
from registry.examples.scores import class_figures, number_figures
from registry.jobs.samples import Ending
from trainer.errors import Fault, InvalidTrainingFile
from trainer.tasks.task import Batch, Example, Question, Score, TextLimits, TrainingTask

#: Of all labels as JSON: they are part of the version's record.
_MAX_LABELS_BYTES = 24 * 1024


class _Labelled(TrainingTask):
    """The common part of classification and regression: a loss over `[B, labels]` logits."""

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = self._logits(model, batch.inputs)
        return self._loss(logits, batch.expected), logits

    def _logits(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = model(**inputs).logits.float()
        return logits

    def _loss(self, logits: Tensor, expected: Tensor) -> Tensor:
        return F.cross_entropy(logits, expected, reduction="sum")

    def collect(self, score: Score, loss: Tensor, logits: Tensor, batch: Batch) -> None:
        score.loss += float(loss)
        score.count += len(logits)
        score.predicted.append(self._answers(logits).cpu())
        score.expected.append(batch.expected.cpu())

    def question(self, row: Mapping[str, Any]) -> Question | None:
        """Return the text, or the image's name, and its label."""
        example = self.example(row)
        label = example.label
        expected = label if isinstance(label, str) else f"{label:g}"
        return Question(str(row.get("text") or row.get("file") or ""), expected, example)

    def answer(
        self,
        model: nn.Module,
        question: Question,
        device: torch.device,
        goes_on: Callable[[], bool],
    ) -> tuple[str, Ending]:
        """Return the predicted label; one forward pass."""
        if not goes_on():
            return "", "time"
        batch = self.batch([question.given], device)
        return self._named(self._answers(self._logits(model, batch.inputs))[0]), "stop"

    def _named(self, answer: Tensor) -> str:
        """Return a prediction in words."""
        raise NotImplementedError

    def _answers(self, logits: Tensor) -> Tensor:
        return logits.argmax(-1)

    def _expected(self, examples: Sequence[Example]) -> Tensor:
        raise NotImplementedError


class _Classes(_Labelled):
    """Labels are classes, named by the training file."""

    _labels: tuple[str, ...] = ()

    @property
    def num_outputs(self) -> int | None:
        return len(self._labels)

    @property
    def labels(self) -> tuple[str, ...] | None:
        return self._labels

    def labels_of(self, found: frozenset[str]) -> tuple[str, ...] | None:
        if len(found) < 2:
            message = f"the file has one label only, {min(found)!r}; at least 2 are needed"
            raise InvalidTrainingFile([Fault(0, message)])
        if len(found) > MAX_LABELS:
            message = f"the file has {len(found)} labels; give at most {MAX_LABELS}"
            raise InvalidTrainingFile([Fault(0, message)])
        size = len(json.dumps(sorted(found), ensure_ascii=False).encode())
        if size > _MAX_LABELS_BYTES:
            message = f"the names of the file's {len(found)} labels have {size} bytes; at most "
            message += f"{_MAX_LABELS_BYTES} are taken: use shorter names, or numbers"
            raise InvalidTrainingFile([Fault(0, message)])
        are_numbers = all(label.isdecimal() for label in found)
        return tuple(sorted(found, key=lambda one: (int(one) if are_numbers else 0, one)))

    def use_labels(self, labels: tuple[str, ...] | None) -> None:
        assert labels is not None
        self._labels = labels
        self._numbers = {label: number for number, label in enumerate(labels)}

    def check_label(self, example: Example, known: Set[str] | None) -> None:
        if known is not None and example.label not in known:
            some = ", ".join(sorted(known)[:8])
            raise ValueError(f"has the label {example.label!r}, unknown in training ({some})")

    def _expected(self, examples: Sequence[Example]) -> Tensor:
        return torch.tensor([self._numbers[str(example.label)] for example in examples])

    def _named(self, answer: Tensor) -> str:
        return self._labels[int(answer)]

    def metrics(self, score: Score) -> dict[str, float]:
        got, true = torch.cat(score.predicted), torch.cat(score.expected)
        return class_figures(score.mean, got, true)


class _Texts(_Labelled):
    """Examples are texts, read through a tokenizer.

    Args:
        tokenizer: the base's.
        limits: of its texts.
        pad_id: the padding token of the base's config.
        pads: whether padding leaves the base's answers as they are.
    """

    peft_task: ClassVar[str | None] = "SEQ_CLS"

    def __init__(self, tokenizer: Any, limits: TextLimits, pad_id: int, pads: bool = True) -> None:
        self._tokenizer, self._limits = tokenizer, limits
        self._pad_id, self._pads = pad_id, pads

    def _logits(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        def run(some: Mapping[str, Tensor]) -> Tensor:
            return super(_Texts, self)._logits(model, some)

        return run(inputs) if self._pads else by_length(run, inputs)

    def example(self, row: Mapping[str, Any]) -> Example:
        text, label = row.get("text"), self._label(row.get("label"))
        if not isinstance(text, str) or not text:
            raise ValueError("has no text under `text`; expected `text` and `label`")
        ids = text_ids(self._tokenizer, text)
        self._limits.check(ids)
        if len(ids) <= self._limits.max_length:
            return Example(ids, label=label)
        kept = cut(self._tokenizer, ids, self._limits.max_length)
        return Example(kept, label=label, num_cut=len(ids) - len(kept))

    def _label(self, value: Any) -> str | float:
        raise NotImplementedError

    def batch(self, examples: Sequence[Example], device: torch.device) -> Batch:
        given = padded([example.ids for example in examples], self._pad_id)  # as it is served
        inputs = {name: tensor.to(device) for name, tensor in given.items()}
        count = sum(len(example.ids) for example in examples)
        return Batch(inputs, self._expected(examples).to(device), count)


class TextClasses(_Classes, _Texts):
    """`text` and `label`."""

    def _label(self, value: Any) -> str | float:
        return class_of(value)


class Regression(_Texts):
    """`text` and a number under `label`; the loss is the squared error."""

    @property
    def num_outputs(self) -> int | None:
        return 1

    def _label(self, value: Any) -> str | float:
        return number_of(value)

    def _expected(self, examples: Sequence[Example]) -> Tensor:
        return torch.tensor([float(example.label or 0.0) for example in examples])

    def _loss(self, logits: Tensor, expected: Tensor) -> Tensor:
        return F.mse_loss(logits[:, 0], expected, reduction="sum")

    def _answers(self, logits: Tensor) -> Tensor:
        return logits[:, 0]

    def _named(self, answer: Tensor) -> str:
        return f"{float(answer):.4g}"

    def metrics(self, score: Score) -> dict[str, float]:
        got, true = torch.cat(score.predicted), torch.cat(score.expected)
        return number_figures(score.mean, got, true)


class ImageClasses(_Classes):
    """Images with labels; `processor` is the base's own.

    Args:
        processor: transformers' image processor, with size, mean and deviation.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def example(self, row: Mapping[str, Any]) -> Example:
        if "image" not in row:
            raise ValueError("has no image; images come as a zip with labels")
        given = self._processor(images=row["image"], return_tensors="np")["pixel_values"][0]
        pixels = torch.from_numpy(np.ascontiguousarray(given, dtype=np.float32))
        return Example(label=class_of(row["label"]), pixels=pixels)

    def batch(self, examples: Sequence[Example], device: torch.device) -> Batch:
        pixels = torch.stack([example.pixels for example in examples if example.pixels is not None])
        expected = self._expected(examples).to(device)
        return Batch({"pixel_values": pixels.to(device)}, expected, len(examples))
