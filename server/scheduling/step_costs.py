"""What a step's rows cost on this machine, learned from the steps that it runs. Pure.

A line through the seconds of steps of single tokens by their rows: weighted least squares, older
steps counting less and less. Prompts' rows cost something else, so steps with some are left out.
"""

from dataclasses import dataclass

#: What a step counts after each later one: the last few hundred make the line.
_FORGETTING = 0.995
#: Fewer steps, or steps that are all alike, tell nothing about what one row more costs.
_LEAST_STEPS, _LEAST_VARIANCE = 8.0, 0.25


@dataclass(frozen=True)
class Line:
    """Seconds of a step: fixed, and for each row."""

    fixed_s: float
    row_s: float

    def at(self, rows: int) -> float:
        """Return the seconds of a step of so many rows."""
        return self.fixed_s + self.row_s * rows


class StepCosts:
    """The line so far."""

    def __init__(self) -> None:
        self._weight = self._rows = self._seconds = 0.0
        self._squares = self._products = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """Take a step of single tokens into account."""
        self._weight = _FORGETTING * self._weight + 1.0
        self._rows = _FORGETTING * self._rows + rows
        self._seconds = _FORGETTING * self._seconds + seconds
        self._squares = _FORGETTING * self._squares + rows * rows
        self._products = _FORGETTING * self._products + rows * seconds

    @property
    def line(self) -> Line | None:
        """Return the line; None while too little was seen. No row costs less than nothing."""
        if self._weight < _LEAST_STEPS:
            return None
        rows, seconds = self._rows / self._weight, self._seconds / self._weight
        variance = self._squares / self._weight - rows * rows
        if variance < _LEAST_VARIANCE:
            return None
        row_s = max(0.0, (self._products / self._weight - rows * seconds) / variance)
        row_s = min(row_s, seconds / rows)  # nor does a step without rows
        return Line(seconds - row_s * rows, row_s)
