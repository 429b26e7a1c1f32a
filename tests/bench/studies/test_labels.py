"""Labels of points that lie on each other can all be read."""

from itertools import combinations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from bench.studies.labels import Label, place

_NAMES = ("WaveletFT n=960", "LoRA r=1", "FRoD s=0.00116", "FourierFT n=960", "SHiRA r=1")


def _drawn(points: list[tuple[float, float]]) -> tuple[Axes, list[Bbox]]:
    figure = Figure(figsize=(6.0, 5.0))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], "none")
    labels = [Label(name, x, y, "C0") for name, (x, y) in zip(_NAMES, points, strict=True)]
    place(figure, axes, labels)
    figure.draw_without_rendering()
    return axes, [Text.get_window_extent(text) for text in axes.texts]


def test_five_points_at_one_place_have_labels_that_cover_no_other() -> None:
    _, boxes = _drawn([(0.5, 0.5)] * 5)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_no_label_covers_a_point_or_leaves_the_axes() -> None:
    points = [(1.0, 1.0), (1.0, 0.995), (0.5, 0.5), (0.52, 0.5), (0.0, 0.0)]
    axes, boxes = _drawn(points)
    frame = axes.get_window_extent()
    for box in boxes:
        assert not any(box.contains(*axes.transData.transform(point)) for point in points)
        assert frame.contains(box.x0, box.y0)
        assert frame.contains(box.x1, box.y1)


def test_a_point_apart_has_its_label_right_beside_it() -> None:
    axes, boxes = _drawn([(0.1, 0.9), (0.3, 0.7), (0.5, 0.5), (0.3, 0.3), (0.1, 0.1)])
    for box, (x, y) in zip(boxes, [(0.1, 0.9), (0.3, 0.7)], strict=False):
        at = axes.transData.transform((x, y))
        assert 0 < box.x0 - at[0] < 20
        assert abs((box.y0 + box.y1) / 2 - at[1]) < 5
