"""The study on a real base as tables, and as a picture of quality over the file's bytes."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.studies.labels import Label, place
from bench.studies.runs import Study

Row = Mapping[str, Any]
#: Figure of a row -> its column.
_COLUMNS = {"eval_loss": "loss", "right": "right", "rouge_l": "ROUGE-L", "exact": "exact"}
#: What the picture shows of a text: the first of these that its rows have.
_QUALITY = ("right", "rouge_l", "eval_loss")
_NOTHING: Row = {"coefficients": 0, "bytes": 0}
_GREY = ("lora", "peft", "base")


def markdown(study: Study, table: Sequence[Row]) -> str:
    """Return one table: a line a contender, columns of each text that it was run on."""
    texts = _texts(table)
    columns = [(text, name) for text, rows in texts.items() for name in _figures(rows)]
    heads = [f"{text}: {_COLUMNS[name]}" for text, name in columns]
    lines = ["| contender | trained numbers | file, bytes | " + " | ".join(heads) + " | seeds |"]
    lines.append("|" + " -- |" * (4 + len(columns)))
    for label in dict.fromkeys(_label(row) for row in table):
        own = {text: _row_of(rows, label) for text, rows in texts.items()}
        first = next((row for row in own.values() if row and row["seeds"]), _NOTHING)
        values = [_value(own[text], name) for text, name in columns]
        seeds = "/".join(dict.fromkeys(str(row["seeds"]) for row in own.values() if row))
        size = f"{first['coefficients']:,} | {first['bytes']:,}"
        lines.append(f"| {label} | {size} | {' | '.join(values)} | {seeds} |")
    return "\n".join(lines) + "\n"


def draw(study: Study, table: Sequence[Row], file: Path) -> None:
    """Write one panel a text: quality over the file's bytes, mean and range of the seeds.

    Points of one method are joined; the base alone is a level.
    """
    texts = _texts([row for row in table if row["seeds"]])
    figure = Figure(figsize=(1.0 + 5.6 * len(texts), 5.0), layout="constrained")
    methods = {one.what: one.method for one in study.contenders}
    panels = figure.subplots(1, len(texts), squeeze=False)[0]
    labels = list[list[Label]]()
    for axes, (text, rows) in zip(panels, texts.items(), strict=True):
        name = next(name for name in _QUALITY if name in rows[0])
        axes.set_title(f"{text}: {_COLUMNS[name]}", fontsize=10)
        labels.append(_panel(axes, rows, name, methods))
    for axes, own in zip(panels, labels, strict=True):
        place(figure, axes, own)
    figure.savefig(file, dpi=110)


def _panel(axes: Axes, rows: Sequence[Row], name: str, methods: Mapping[str, str]) -> list[Label]:
    """Draw one text's points, and return their labels."""
    labels = list[Label]()
    axes.set_xscale("log")
    axes.set_xlabel("bytes of the adapter's file")
    axes.grid(alpha=0.3)
    colors = cycle(f"C{number}" for number in range(10) if number != 7)
    for method in dict.fromkeys(methods[row["what"]] for row in rows):
        own = sorted((r for r in rows if methods[r["what"]] == method), key=lambda r: r["bytes"])
        color = "grey" if method in _GREY else next(colors)
        if method == "base":
            axes.axhline(own[0][name], color=color, linestyle=":", linewidth=1)
            continue
        values = [row[name] for row in own]
        spread = [[row[name] - _end(row, name, 0) for row in own]]
        spread.append([_end(row, name, 1) - row[name] for row in own])
        line = "none" if method == "peft" else "-"
        sizes = [row["bytes"] for row in own]
        axes.errorbar(sizes, values, spread, fmt="o", ls=line, color=color, ms=4, capsize=2, lw=0.8)
        labels += [Label(_label(row), row["bytes"], row[name], color) for row in own]
    axes.margins(x=0.25)
    return labels


def _texts(table: Sequence[Row]) -> dict[str, list[Row]]:
    """Return text -> its rows."""
    found: dict[str, list[Row]] = {}
    for row in table:
        found.setdefault(row["what"].partition(": ")[0], []).append(row)
    return found


def _label(row: Row) -> str:
    return str(row["what"].partition(": ")[2])


def _row_of(rows: Sequence[Row], label: str) -> Row | None:
    return next((row for row in rows if _label(row) == label), None)


def _figures(rows: Sequence[Row]) -> list[str]:
    return [name for name in _COLUMNS if any(name in row for row in rows)]


def _end(row: Row, name: str, which: int) -> float:
    """Return the least (0) or the most (1) of a figure."""
    end = ("least", "most")[which]
    return float(row[end] if name == "eval_loss" else row[f"{name}_{end}"])


def _value(row: Row | None, name: str) -> str:
    """Return mean and range, the range only of several seeds."""
    if row is None or name not in row:
        return "diverged" if row and not row["seeds"] else ""
    if row["seeds"] == 1:
        return f"{row[name]:.3f}"
    return f"{row[name]:.3f} ({_end(row, name, 0):.3f} - {_end(row, name, 1):.3f})"
