"""How many rows of a step the background may have: those that cost live sequences little. Pure.

What rows cost is measured at start (planning/calibration.py). Beside live sequences the background
gets rows for a small share of the steps' time: where a row is nearly free, as on a GPU with few
sequences, that is many; where a row costs a tenth of a step, it is one every other step.
"""

from collections.abc import Callable

#: For so long after the last live sequence, steps of the background alone are short: a first token
#: waits for the step before it.
_QUIET_S = 5.0
#: A short step takes at most so many times as long as one of a single row.
_SHORT = 2.0
#: Rows of a short step where nothing was measured.
_UNMEASURED_ROWS = 32

Seconds = Callable[[float], float]


class SpareRows:
    """What the background may have, step by step.

    Args:
        max_rows: of a step.
        slowdown: by which share live sequences' steps may be longer; 0: never beside them.
        seconds: of a step with so many rows, or what grows likewise; None: not measured, so that
            the background never runs beside live sequences.
    """

    def __init__(
        self, max_rows: int, slowdown: float = 0.05, seconds: Seconds | None = None
    ) -> None:
        self._max_rows = max_rows
        self._slowdown = slowdown
        self._seconds = seconds
        self._short_rows = min(max_rows, _UNMEASURED_ROWS if seconds is None else self._short())
        self._credit_s = 0.0
        self._live_at: float | None = None

    def see_live(self, now: float) -> None:
        """Note that a live sequence waits or runs."""
        self._live_at = now

    def alone(self, now: float) -> int:
        """Return the rows of a step without live ones."""
        is_quiet = self._live_at is None or now - self._live_at > _QUIET_S
        return self._max_rows if is_quiet else self._short_rows

    def beside(self, live_rows: int) -> int:
        """Return the rows that may be added to a step with these live ones; `spend` what is used.

        The share is saved up until it is enough for one row, and no further.
        """
        if self._seconds is None or not self._slowdown:
            return 0
        share_s = self._slowdown * self._seconds(live_rows)
        most_s = share_s + max(0.0, self._added_s(live_rows, 1))
        self._credit_s = min(self._credit_s + share_s, most_s)
        rows = 0
        while live_rows + rows < self._max_rows and self._is_paid(live_rows, rows + 1):
            rows += 1
        return rows

    def spend(self, live_rows: int, rows: int) -> None:
        """Note that so many rows were added to a step with these live ones."""
        self._credit_s -= self._added_s(live_rows, rows)

    def _is_paid(self, live_rows: int, rows: int) -> bool:
        return self._added_s(live_rows, rows) <= self._credit_s

    def _added_s(self, live_rows: int, rows: int) -> float:
        if self._seconds is None:
            return 0.0
        return self._seconds(live_rows + rows) - self._seconds(live_rows)

    def _short(self) -> int:
        rows = 1
        while rows < self._max_rows and self._seconds_of(rows + 1) <= _SHORT * self._seconds_of(1):
            rows += 1
        return rows

    def _seconds_of(self, rows: int) -> float:
        return 0.0 if self._seconds is None else self._seconds(rows)
