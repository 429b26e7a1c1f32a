"""The training curve of a job as a picture, drawn from the numbers that the loop wrote down."""

import io
import json
from pathlib import Path

from matplotlib.figure import Figure

from trainer.checkpoint import write_whole

CURVE_NAME, PLOT_NAME = "curve.jsonl", "plot.png"
#: Points of the smoothed line's window, as a share of all.
_SMOOTHING = 20


def read_curve(folder: Path) -> list[dict[str, float]]:
    """Return a job's numbers by step; of a step that was done twice the later ones.

    A line that was cut off when the process was killed is passed over.
    """
    found: dict[tuple[int, bool], dict[str, float]] = {}
    path = folder / CURVE_NAME
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            values = json.loads(line)
            found[int(values["step"]), "eval_loss" in values] = values
        except (ValueError, KeyError, TypeError):
            continue
    return [found[key] for key in sorted(found)]


def draw_curve(folder: Path, title: str) -> Path:
    """Write the picture of a job's losses beside its numbers and return its path."""
    curve = read_curve(folder)
    trained = [(c["step"], c["train_loss"]) for c in curve if "train_loss" in c]
    held = [(c["step"], c["eval_loss"]) for c in curve if "eval_loss" in c]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    if trained:
        steps, losses = zip(*trained, strict=True)
        axes.plot(steps, losses, color="tab:blue", alpha=0.3, linewidth=0.8)
        axes.plot(steps, _smoothed(losses), color="tab:blue", label="training")
    if held:
        steps, losses = zip(*held, strict=True)
        axes.plot(steps, losses, "o-", color="tab:orange", markersize=4, label="held out")
    axes.set(xlabel="step", ylabel="loss", title=title)
    axes.grid(alpha=0.3)
    if trained or held:
        axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_whole(folder / PLOT_NAME, picture.getvalue())
    return folder / PLOT_NAME


def _smoothed(values: tuple[float, ...]) -> list[float]:
    """Return the mean of each value and those before it, a twentieth of all."""
    width = max(1, len(values) // _SMOOTHING)
    parts = (values[max(0, i + 1 - width) : i + 1] for i in range(len(values)))
    return [sum(part) / len(part) for part in parts]
