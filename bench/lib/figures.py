"""Figures that are printed and saved as soon as they are there, for runs that may be cut short."""

import json
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Figures:
    """Takes figures one after the other, each a line of JSON.

    Args:
        budget_s: after so many seconds nothing is begun any more.
        out: file that each line is added to as well.
    """

    def __init__(self, budget_s: float, out: Path | None = None) -> None:
        self._until = time.monotonic() + budget_s
        self._out = out
        self.rows: list[dict[str, Any]] = []

    def take(self, name: str, measure: Callable[[], Mapping[str, Any]]) -> None:
        """Enter what `measure` returns; the reason if it raises, or if no time is left."""
        started = time.monotonic()
        if started > self._until:
            self._enter({"figure": name, "reason": "no time was left"})
            return
        try:
            found = dict(measure())
        except Exception as error:  # one figure less, not none
            traceback.print_exc()
            found = {"reason": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        self._enter({"figure": name, **found, "took_s": round(time.monotonic() - started, 1)})

    @property
    def missing(self) -> dict[str, str]:
        """Return the reasons of the figures that were not taken."""
        return {row["figure"]: row["reason"] for row in self.rows if "reason" in row}

    def _enter(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        line = json.dumps(row)
        print(line, flush=True)
        if self._out is not None:
            with self._out.open("a") as file:
                file.write(f"{line}\n")
