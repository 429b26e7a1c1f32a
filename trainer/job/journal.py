"""A job's metrics in its own folder, so that none are lost with a killed process.

A step's metrics reach the registry a moment later, or much later while it is down. The next attempt
sends those again that are here.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

_NAME = "news.jsonl"


class Journal:
    """Lines of step and values.

    Args:
        folder: the job's own.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._known: set[tuple[int, frozenset[str]]] = set()

    def read(self) -> list[tuple[int, dict[str, float]]]:
        """Return all lines in their order, but for one that a killed process left incomplete."""
        lines = list(self._lines())
        self._known = {(step, frozenset(values)) for step, values in lines}
        return lines

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Keep a step's values, once; on a full disk only the line is lost."""
        known = (step, frozenset(values))
        if known in self._known:
            return
        self._known.add(known)
        with suppress(OSError), self._path.open("a") as file:
            file.write("\n" + json.dumps([step, dict(values)]))

    def _lines(self) -> Iterator[tuple[int, dict[str, float]]]:
        with suppress(FileNotFoundError), self._path.open() as file:
            for line in file:
                with suppress(ValueError):
                    step, values = json.loads(line)
                    yield step, values
