"""Losses over steps, drawn in characters."""

from collections.abc import Sequence
from typing import TypeAlias

from rich.text import Text

#: Steps with their losses.
Losses: TypeAlias = Sequence[tuple[int, float]]

_HEIGHT = 8
_MARGIN = 23  # columns that the axes take; a tick stands every ten columns
_WIDEST = 100


def drawn(train: Losses, held_out: Losses, num_steps: int, width: int) -> Text:
    """The losses so far, as wide as the whole job; nothing before there are two.

    Args:
        train: of each step.
        held_out: of the steps after which it was measured.
        num_steps: of the job; 0 where that is not known yet.
        width: of the terminal, in characters.
    """
    if len(train) < 2 or width < 2 * _MARGIN:
        return Text()
    import plotille

    figure = plotille.Figure()
    figure.width, figure.height = (min(width, _WIDEST) - _MARGIN) // 10 * 10, _HEIGHT
    figure.color_mode, figure.origin = "names", False
    figure.x_label, figure.y_label = "step", "loss"
    figure.set_x_limits(0, max(num_steps, train[-1][0], 1))
    figure.register_label_formatter(float, _label)
    figure.register_label_formatter(int, _label)
    figure.plot(*zip(*train, strict=True), lc="cyan")
    for step, loss in held_out:
        figure.text([step], [loss], ["o"], lc="yellow")
    text = Text.from_ansi(figure.show())
    if held_out:
        text.append("\n")
        text.append("o", "yellow")
        text.append(f" held out: {held_out[-1][1]:.4f}")
    return text


def _label(value: float, chars: int, delta: float, left: bool = False) -> str:
    """A number on an axis, in as many characters as are there for it."""
    text = f"{value:.0f}" if float(value).is_integer() or delta > 20 else f"{value:.3g}"
    return text.ljust(chars) if left else text.rjust(chars)
