"""The picture of a job's losses over its steps, drawn from what the registry holds of it."""

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence

from registry import JobRecord, MetricPoint
from registry.common.pages import MAX_PAGE
from registry.jobs.jobs import Jobs

#: Points of one line; more of them could not be told apart.
_MAX_POINTS = 1000
_MAX_KEPT = 32
#: Name of a series -> label and style.
_SERIES = {"train_loss": ("training", "-"), "eval_loss": ("held out", "o-")}


class Curves:
    """Draws curves, one at a time: the engine needs the interpreter. The latest ones are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str, str], bytes] = OrderedDict()

    def plot(self, jobs: Jobs, job: JobRecord) -> bytes:
        """Return the curve as a PNG; what was drawn before is drawn again only if it has grown."""
        points = all_points(jobs, job.id)
        key = (job.id, job.state, points[-1].id if points else "")
        with self._lock:
            if key not in self._kept:
                title = f"{job.spec.name}: {job.spec.method}, {job.state}"
                self._kept[key] = _drawn(points, title)
                while len(self._kept) > _MAX_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]


def all_points(jobs: Jobs, id_: str) -> list[MetricPoint]:
    """Return all measurements of a job, by their steps."""
    found: list[MetricPoint] = []
    while True:
        page = jobs.metrics(id_, MAX_PAGE, found[-1].id if found else None)
        found += page
        if len(page) < MAX_PAGE:
            return found


def _drawn(points: Sequence[MetricPoint], title: str) -> bytes:
    from matplotlib.figure import Figure  # half a second that no start needs

    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.subplots()
    for name, (label, style) in _SERIES.items():
        steps, values = _series(points, name)
        if steps:
            axes.plot(steps, values, style, label=label, linewidth=1.2, markersize=4)
    axes.set(xlabel="step", ylabel="loss", title=title)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    else:
        axes.text(0.5, 0.5, "no step yet", transform=axes.transAxes, ha="center", va="center")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()


def _series(points: Sequence[MetricPoint], name: str) -> tuple[list[float], list[float]]:
    """Return steps and values; of very many, the means of neighbours."""
    found = [(point.step, point.values[name]) for point in points if name in point.values]
    width = -(-len(found) // _MAX_POINTS) or 1
    groups = [found[start : start + width] for start in range(0, len(found), width)]
    means = [
        tuple(sum(column) / len(group) for column in zip(*group, strict=True)) for group in groups
    ]
    return [mean[0] for mean in means], [mean[1] for mean in means]
