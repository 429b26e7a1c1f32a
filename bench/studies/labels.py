"""Labels beside the points of a picture, each where it covers no other label and no point."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

#: The distance of a label from its point, and the step by which it is moved, in points of print.
_SIDE, _STEP, _STEPS = 6.0, 4.0, 40
#: Half a marker, in pixels of the canvas.
_MARKER = 4.0
_Side = Literal["left", "right"]
_SIDES: tuple[_Side, ...] = ("left", "right")


@dataclass(frozen=True)
class Label:
    """A text beside the point `x`, `y` of an axes, in the units of its data."""

    text: str
    x: float
    y: float
    color: str


def place(figure: Figure, axes: Axes, labels: Sequence[Label]) -> None:
    """Write the labels; called when everything else is drawn, as the axes must not move after it.

    Each label has the free place nearest to its point, right or left of it, and a thin line to the
    point if that is not right beside it. Where no place is free it covers something.
    """
    figure.draw_without_rendering()
    taken = [_marker(axes, label) for label in labels]
    for label in labels:
        taken.append(_placed(axes, label, taken))


def _placed(axes: Axes, label: Label, taken: Sequence[Bbox]) -> Bbox:
    """Write one label, and return what it covers."""
    text = axes.annotate(
        label.text,
        (label.x, label.y),
        (_SIDE, 0.0),
        textcoords="offset points",
        va="center",
        fontsize=7,
        color=label.color,
        arrowprops={"arrowstyle": "-", "lw": 0.4, "color": label.color, "shrinkA": 0},
    )
    frame = axes.get_window_extent()
    for height in _heights():
        for side in _SIDES:
            box = _moved(text, side, height)
            is_inside = frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1)
            if is_inside and not box.count_overlaps(taken):
                return box
    return _moved(text, "left", 0.0)


def _heights() -> list[float]:
    """Return how far up a label is moved, nearest first: 0, 4, -4, 8, ..."""
    steps = range(1, _STEPS + 1)
    return [0.0] + [sign * _STEP * step for step in steps for sign in (1, -1)]


def _moved(text: Annotation, side: _Side, height: float) -> Bbox:
    """Move a label, the side of it at its point being left or right; return what it covers."""
    away = _SIDE + 2.0 * min(abs(height), _SIDE)
    text.set_horizontalalignment(side)
    text.set_position((away if side == "left" else -away, height))
    text.get_window_extent()  # moves it; of text and line together
    return Text.get_window_extent(text)


def _marker(axes: Axes, label: Label) -> Bbox:
    x, y = axes.transData.transform((label.x, label.y))
    return Bbox.from_extents(x - _MARKER, y - _MARKER, x + _MARKER, y + _MARKER)
