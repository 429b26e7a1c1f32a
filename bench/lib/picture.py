"""A run as one picture: how long first tokens and gaps took, and tokens over time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.lib.load_runner import Record
from bench.lib.summary import gaps, ttft
from overtone_client import InvalidArgument

_SUFFIXES = (".png", ".pdf", ".svg")
_BINS = 60


def check_picture(file: Path) -> None:
    """Refuse a file that no picture can be written to, before anything is measured.

    Raises:
        InvalidArgument: its suffix is unknown, or its folder is not there.
    """
    if file.suffix.lower() not in _SUFFIXES:
        raise InvalidArgument(f"--picture {file}: the name must end in {', '.join(_SUFFIXES)}")
    if not file.parent.is_dir():
        raise InvalidArgument(f"--picture {file}: {file.parent} is no folder")


def draw(record: Record, title: str, file: Path) -> None:
    """Write the picture; its kind follows the file's suffix."""
    good = [seen for seen in record.seen if seen.code is None]
    figure = Figure(figsize=(13.0, 4.0), layout="constrained")
    first, between, over_time = figure.subplots(1, 3)
    _shares(first, [ttft(seen) for seen in good], "time to first token")
    _shares(between, [gap for seen in good for gap in gaps(seen)], "time between tokens")
    _tokens(over_time, [at for seen in record.seen for at in seen.tokens_s], record.window_s)
    figure.suptitle(title, fontsize=9)
    figure.savefig(file, dpi=110)


def _shares(axes: Axes, seconds: Sequence[float], what: str) -> None:
    """Draw the share of values that are no longer than x."""
    axes.set_title(what, fontsize=9)
    axes.set_xlabel("milliseconds")
    axes.set_ylabel("share")
    axes.grid(alpha=0.3)
    if seconds:
        values = 1e3 * np.sort(np.array(seconds))
        axes.step(values, np.arange(1, len(values) + 1) / len(values), where="post")
        for share in (0.5, 0.99):
            mark = float(np.quantile(values, share))
            axes.axvline(mark, color="grey", linewidth=0.8)
            axes.text(mark, 0.02, f" p{100 * share:.0f} {mark:.4g}", fontsize=7)


def _tokens(axes: Axes, arrivals: Sequence[float], window_s: float) -> None:
    """Draw tokens a second over the run; the grey line is where sending ended."""
    axes.set_title("throughput", fontsize=9)
    axes.set_xlabel("seconds")
    axes.set_ylabel("tokens/s")
    axes.grid(alpha=0.3)
    if arrivals:
        counts, edges = np.histogram(np.array(arrivals), bins=_BINS)
        axes.stairs(counts / np.diff(edges), edges, fill=True, alpha=0.6)
        axes.axvline(window_s, color="grey", linewidth=0.8)
