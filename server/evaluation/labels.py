"""Figures of labels: a served classifier's accuracy and loss, or a regression's errors."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters_core.tokens.texts import cut
from registry.examples.labels import class_of, number_of
from registry.examples.scores import class_figures, number_figures
from server.api.answerer import Answerer
from server.encoding.encoder import Input, num_tokens
from server.encoding.labels import names_of
from server.errors import InvalidRequest
from server.evaluation.example_errors import example_error
from server.service import Service

#: Examples of one request to the batcher.
_AT_ONCE = 32

Row = tuple[int, Mapping[str, Any]]


class LabelFigures:
    """The figures of a classifier of texts or images, or of a regression.

    Args:
        service: of such a base.
        answerer: the base, if it has a head of its own, or a version of an adapter.
        tenant: that the requests count for.
        max_length: texts are cut to it; None refuses longer ones than the base takes.

    Raises:
        InvalidRequest: the base has no labels.
    """

    def __init__(
        self, service: Service, answerer: Answerer, tenant: str, max_length: int | None
    ) -> None:
        self._encoding = service.encoding
        if self._encoding.kind == "embedder":
            raise InvalidRequest("an embedder answers with vectors, not labels", "model")
        if answerer.record is None and not self._encoding.has_own_head:
            raise InvalidRequest("the base has no trained head of its own; name an adapter")
        self._service, self._answerer, self._tenant = service, answerer, tenant
        self._max_length = max_length
        self._logits: list[Tensor] = []
        self._labels: list[tuple[int, Any]] = []
        self.mode: str | None = None

    def answers(self, rows: Iterator[Row]) -> Iterator[int]:
        """Answer every example; yield how many are answered."""
        yield 0
        while some := list(islice(rows, _AT_ONCE)):
            inputs = [self._input(line, row) for line, row in some]
            self._labels += [(line, row.get("label")) for line, row in some]
            self._logits += self._answered(inputs)
            yield len(self._logits)

    def figures(self) -> dict[str, float]:
        """Return the task's figures.

        Raises:
            InvalidRequest: a label is none of the model's; the message names its line.
        """
        logits = torch.stack(self._logits)
        if self._is_regression(logits):
            return self._of_numbers(logits[:, 0])
        true = torch.tensor(list(self._classes(logits.shape[1])))
        loss = float(F.cross_entropy(logits, true))
        return class_figures(loss, logits.argmax(1), true)

    def _is_regression(self, logits: Tensor) -> bool:
        return logits.shape[1] == 1 or self._encoding.problem == "regression"

    def _of_numbers(self, got: Tensor) -> dict[str, float]:
        true = []
        for line, label in self._labels:
            try:
                true.append(number_of(label))
            except ValueError as error:
                raise example_error(line, error) from error
        expected = torch.tensor(true)
        return number_figures(float(F.mse_loss(got, expected)), got, expected)

    def _classes(self, num_labels: int) -> Iterator[int]:
        """Yield the row of the head that each example's label names."""
        record = self._answerer.record
        names = names_of(num_labels, record.metadata if record else {}, self._encoding.labels)
        numbers = {name: number for number, name in enumerate(names)}
        for line, label in self._labels:
            try:
                name = class_of(label)
            except ValueError as error:
                raise example_error(line, error) from error
            if name not in numbers:
                known = ", ".join(list(numbers)[:8])
                raise example_error(
                    line, f"has the label {name!r}, which the model has not ({known})"
                )
            yield numbers[name]

    def _input(self, line: int, row: Mapping[str, Any]) -> Input:
        try:
            return self._read(row)
        except (ValueError, InvalidRequest) as error:
            raise example_error(line, error) from error

    def _read(self, row: Mapping[str, Any]) -> Input:
        if self._encoding.images is not None:
            if "image" not in row:
                raise ValueError("has no image; images come as a zip with labels")
            return self._encoding.images.of_image(row["image"])
        text = row.get("text")
        if not isinstance(text, str) or not text:
            raise ValueError("has no text under `text`; expected `text` and `label`")
        assert self._encoding.texts is not None
        ids = self._encoding.texts.tokens(text, truncate=self._max_length is not None)
        if self._max_length is None or len(ids) <= self._max_length:
            return ids
        return tuple(cut(self._service.base.tokenizer, ids, self._max_length))

    def _answered(self, inputs: list[Input]) -> list[Tensor]:
        record = self._answerer.record
        goes_alone = record is not None and self._encoding.goes_alone(
            record.description.target_modules
        )
        pending = self._encoding.batcher.submit(
            inputs, self._answerer.digest, self._tenant, None, goes_alone
        )
        self._service.meter.spend(self._tenant, sum(map(num_tokens, inputs)))
        try:
            self.mode = pending.mode
            return pending.future.result()
        finally:
            self._encoding.batcher.cancel(pending)
