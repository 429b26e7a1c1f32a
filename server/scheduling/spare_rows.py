"""How many rows of a step the background may have: those that cost live sequences little. Pure.

What rows cost is learned from the steps themselves (step_costs.py). Beside live sequences the
background gets rows for a small share of the steps' time: where a row is nearly free, as on a GPU
with few sequences, that is many; where a row costs a tenth of a step, it is one every other step.
"""

from server.scheduling.step_costs import Line, StepCosts

#: For so long after the last live sequence, steps of the background alone are short: a first token
#: waits for the step before it.
_QUIET_S = 5.0
#: A short step of single tokens takes at most so many times as long as one of a single row.
_SHORT = 2.0
#: Rows of a short step while costs are not known.
_UNKNOWN_ROWS = 16


class SpareRows:
    """What the background may have, step by step.

    Args:
        max_rows: of a step.
        slowdown: by which share live sequences' steps may be longer; 0: never beside them.
        costs: of this machine's steps; nothing runs beside live sequences while they are unknown.
    """

    def __init__(
        self, max_rows: int, slowdown: float = 0.05, costs: StepCosts | None = None
    ) -> None:
        self._max_rows = max_rows
        self._slowdown = slowdown
        self._costs = costs or StepCosts()
        self._credit_s = 0.0
        self._live_at: float | None = None

    def observe(self, rows: int, seconds: float) -> None:
        """Take the seconds of a step of single tokens into account."""
        self._costs.observe(rows, seconds)

    def see_live(self, now: float) -> None:
        """Note that a live sequence waits or runs."""
        self._live_at = now

    def alone(self, now: float) -> int:
        """Return the rows of a step without live ones."""
        is_quiet = self._live_at is None or now - self._live_at > _QUIET_S
        return self._max_rows if is_quiet else min(self._max_rows, self._short_rows())

    def beside(self, live_rows: int) -> int:
        """Return the rows that may be added to a step with these live ones; `spend` what is used.

        The share is saved up until it is enough for one row, and no further.
        """
        line, left = self._costs.line, self._max_rows - live_rows
        if line is None or not self._slowdown:
            return 0
        share_s = self._slowdown * line.at(live_rows)
        self._credit_s = min(self._credit_s + share_s, share_s + line.row_s)
        return left if line.row_s * left <= self._credit_s else int(self._credit_s / line.row_s)

    def spend(self, rows: int) -> None:
        """Note that so many rows were added to a step with live ones."""
        line = self._costs.line or Line(0.0, 0.0)
        self._credit_s -= rows * line.row_s

    def _short_rows(self) -> int:
        line = self._costs.line
        if line is None:
            return _UNKNOWN_ROWS
        longest_s = _SHORT * line.at(1)
        if line.at(self._max_rows) <= longest_s:
            return self._max_rows
        return max(1, int((longest_s - line.fixed_s) / line.row_s))
