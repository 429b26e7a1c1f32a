"""What a step's rows cost, in seconds by number of rows. Pure: calibration.py measures it."""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Curve:
    """Seconds by number of rows: straight between measured points, and beyond the last two.

    Below the first point it is flat: a GEMM of one row reads as many weights as one of four.

    Args:
        points: (rows, seconds), at least one, rows ascending.
    """

    points: tuple[tuple[int, float], ...]

    def at(self, rows: float) -> float:
        """Return the seconds of so many rows; none cost nothing."""
        if rows <= 0:
            return 0.0
        if rows <= self.points[0][0] or len(self.points) == 1:
            return self.points[0][1]
        i = min(bisect_left(self.points, (rows, 0.0)), len(self.points) - 1)
        (x0, y0), (x1, y1) = self.points[i - 1], self.points[i]
        return max(0.0, y0 + (rows - x0) * (y1 - y0) / (x1 - x0))

    def times(self, factor: float) -> "Curve":
        """Return the curve of so many times the seconds."""
        return Curve(tuple((rows, factor * seconds) for rows, seconds in self.points))


def total(curves: Iterable[Curve]) -> Curve:
    """Return the sum of curves over the same rows."""
    points = zip(*(curve.points for curve in curves), strict=True)
    return Curve(tuple((group[0][0], sum(seconds for _, seconds in group)) for group in points))


@dataclass(frozen=True)
class Costs:
    """What one kind of adapter costs a step: one method on certain layers of this base.

    Args:
        own: its layers' linears over rows that go through weights of their own.
        split: picking rows out of a batch and putting them back, over these layers.
        token: the factored update of single tokens, on top of the base's linears.
        prompt: the same of one prompt's rows.
        merged_bytes: of one merged copy.
        merge_s: seconds to make one.
    """

    own: Curve
    split: Curve
    token: Curve
    prompt: Curve
    merged_bytes: int
    merge_s: float
