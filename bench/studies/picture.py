"""A study as one picture, what each contender reaches with how many numbers, and as a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench.studies.runs import Study

_METHODS_OF_OTHERS = ("head", "full", "peft", "lora")


def draw(study: Study, table: Sequence[dict[str, Any]], file: Path) -> None:
    """Write the picture of the table that `summed_up` gave; its kind follows the file's suffix.

    A line a contender: mean and range of its seeds, and how many numbers it trains.
    """
    table = [row for row in table if row["seeds"]]  # others diverged
    figure = Figure(figsize=(8.0, 1.2 + 0.28 * len(table)), layout="constrained")
    axes = figure.subplots()
    for height, row in enumerate(table):
        _line(axes, study, row, height)
    axes.set_yticks(range(len(table)), [row["what"] for row in table])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(f"held-out {study.metric}, mean and range of the seeds; trained numbers")
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)


def _line(axes: Any, study: Study, row: dict[str, Any], height: int) -> None:
    value = row[study.metric]
    method = next(one.method for one in study.contenders if one.what == row["what"])
    color = "grey" if method in _METHODS_OF_OTHERS else "tab:blue"
    spread = [[value - row["least"]], [row["most"] - value]]
    axes.errorbar(value, height, xerr=spread, fmt="o", color=color, capsize=3, ms=4)
    label, at = f"{row['coefficients']:,}", (row["most"], height)
    axes.annotate(label, at, (6, -3), textcoords="offset points", fontsize=7, color=color)


def markdown(study: Study, table: Sequence[dict[str, Any]]) -> str:
    """Return the table that `summed_up` gave as docs/training.md has it."""
    lines = [
        f"| contender | trained numbers | file, bytes | {study.metric} | least - most | s | MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in (row for row in table if row["seeds"]):
        spread = f"{row['least']:.3f} - {row['most']:.3f}"
        lines.append(
            f"| {row['what']} | {row['coefficients']:,} | {row['bytes']:,} | "
            f"{row[study.metric]:.3f} | {spread} | {row['cpu_s']:.0f} | {row['peak_mib']:.0f} |"
        )
    return "\n".join(lines) + "\n"
