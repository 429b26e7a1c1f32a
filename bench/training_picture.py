"""A study as one picture, what each contender reaches over how many numbers, and as a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench.training_runs import Study

_METHODS_OF_OTHERS = ("head", "full", "peft", "lora")


def draw(study: Study, table: Sequence[dict[str, Any]], file: Path) -> None:
    """Write the picture of the table that `summed_up` gave; its kind follows the file's suffix."""
    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    axes = figure.subplots()
    for row in table:
        _point(axes, study, row)
    axes.set_xscale("symlog", linthresh=100)
    axes.set_xlabel("trained numbers, the head apart")
    axes.set_ylabel(f"held-out {study.metric}, mean and range of the seeds")
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)


def _point(axes: Any, study: Study, row: dict[str, Any]) -> None:
    value = row[study.metric]
    method = next(one.method for one in study.contenders if one.what == row["what"])
    color = "grey" if method in _METHODS_OF_OTHERS else "tab:blue"
    spread = [[value - row["least"]], [row["most"] - value]]
    axes.errorbar(row["coefficients"], value, spread, fmt="o", color=color, capsize=3, ms=4)
    axes.annotate(
        row["what"], (row["coefficients"], value), (4, 3), textcoords="offset points", fontsize=7
    )


def markdown(study: Study, table: Sequence[dict[str, Any]]) -> str:
    """Return the table that `summed_up` gave as docs/training.md has it."""
    lines = [
        f"| contender | trained numbers | file, bytes | {study.metric} | least - most | s | MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in table:
        spread = f"{row['least']:.3f} - {row['most']:.3f}"
        lines.append(
            f"| {row['what']} | {row['coefficients']:,} | {row['bytes']:,} | "
            f"{row[study.metric]:.3f} | {spread} | {row['cpu_s']:.0f} | {row['peak_mib']:.0f} |"
        )
    return "\n".join(lines) + "\n"
