"""The figures of served answers on a file of examples: those that a training job reports.

Examples are read as training reads them (registry/examples), and answered as any request is: by
the engine or the batcher, in turns with other tenants, in the adapter's mode. Nothing is trained or
stored.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from registry.examples.lines import Rows
from registry.examples.rows import rows_of
from registry.examples.scores import finite
from registry.training_data.lines import Unreadable
from server.api.answerer import Answerer
from server.errors import InvalidRequest
from server.evaluation.example_errors import example_error
from server.evaluation.labels import LabelFigures
from server.evaluation.texts import TextFigures
from server.service import Generating, Service


@dataclass(frozen=True)
class EvaluationSpec:
    """What is to be evaluated.

    Args:
        answerer: the base, or a version of an adapter.
        file: of examples, in any form that training accepts.
        tenant: that the requests count for.
        max_length: longer texts are cut to it; None refuses texts longer than the base takes.
    """

    answerer: Answerer
    file: Path
    tenant: str
    max_length: int | None


class Figures(Protocol):
    """Adds up answers, example by example."""

    @property
    def mode(self) -> str | None:
        """Return the mode in which the adapter answered."""

    def answers(self, rows: Iterator[tuple[int, Mapping[str, Any]]]) -> Iterator[int]:
        """Answer every example; yield from time to time how many are answered.

        Raises:
            InvalidRequest: an example cannot be read; the message names its line.
        """

    def figures(self) -> dict[str, float]:
        """Return the figures of all that was answered."""


class Evaluation:
    """One evaluation; `run` blocks, on a thread of its own."""

    def __init__(self, service: Service, spec: EvaluationSpec) -> None:
        self._spec = spec
        self._rows = _rows(spec.file)
        self._figures: Figures
        if isinstance(service.serving, Generating):
            self._figures = TextFigures(service, spec.answerer, spec.tenant, spec.max_length)
        else:
            self._figures = LabelFigures(service, spec.answerer, spec.tenant, spec.max_length)

    @property
    def total(self) -> int:
        """Return how many examples there are."""
        return len(self._rows)

    def run(
        self, on_progress: Callable[[int], None], is_wanted: Callable[[], bool]
    ) -> dict[str, Any]:
        """Return the evaluation as the API shows it.

        Args:
            on_progress: called with how many examples are answered.
            is_wanted: called as often; False ends the evaluation.

        Raises:
            InvalidRequest: an example cannot be read; the message names its line.
        """
        for done in self._figures.answers(self._numbered()):
            if not is_wanted():
                raise InvalidRequest("the caller has hung up")
            on_progress(done)
        answerer = self._spec.answerer
        metrics = {name: finite(value) for name, value in self._figures.figures().items()}
        return {
            "object": "evaluation",
            "model": answerer.model,
            "num_examples": self.total,
            "metrics": metrics,
            "overtone": answerer.body(self._figures.mode),
        }

    def _numbered(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        for index in range(len(self._rows)):
            line = self._rows.line(index)
            try:
                yield line, self._rows.row(index)
            except ValueError as error:
                raise example_error(line, error) from error


def _rows(file: Path) -> Rows:
    try:
        rows = rows_of(file)
    except Unreadable as error:
        raise example_error(error.line, error) from error
    if not len(rows):
        raise InvalidRequest("the file holds no example", "file")
    return rows
