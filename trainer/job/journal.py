"""A job's measurements in its own folder, so that a killed process takes none of them along.

The registry hears of a step a moment after it is done, or much later while it is down. What a
process had measured and not yet said, the next attempt finds here and says first.
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
        """Return all that is kept, in its order; a line that a death has torn is left out."""
        lines = list(self._lines())
        self._known = {(step, frozenset(values)) for step, values in lines}
        return lines

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Keep a step's values, once; a disk that takes no more costs nothing but the line."""
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
