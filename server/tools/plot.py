"""Pictures of an adapter's updates: each layer's matrix beside the magnitudes of its spectrum."""

from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from adapters_core.interchange.spectra import cosine_magnitudes, fourier_magnitudes, pooled
from server.tools.adapter_folder import BadFolder

#: Most layers of one picture: with more it is illegible.
MAX_PLOTTED = 8
SUFFIXES = (".png", ".pdf", ".svg")
_DECADES = 6.0


def check_plot(file: Path) -> None:
    """Refuse a file that no picture can be written to, before anything is computed.

    Raises:
        BadFolder: its suffix is unknown, or its folder is not there.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise BadFolder(f"--plot {file}: the name must end in {', '.join(SUFFIXES)}")
    if not file.parent.is_dir():
        raise BadFolder(f"--plot {file}: {file.parent} is no folder")
    if file.is_dir():
        raise BadFolder(f"--plot {file}: it is a folder")


def plot_deltas(deltas: Mapping[str, Tensor], file: Path, *, with_cosines: bool) -> None:
    """Write one picture; its kind follows the file's suffix.

    Args:
        deltas: path -> update `[out, in]`.
        file: to write, or to replace.
        with_cosines: show DCT-II magnitudes instead of those of the Fourier transform.
    """
    figure = Figure(figsize=(9.0, 3.6 * len(deltas)), layout="constrained")
    rows = figure.subplots(len(deltas), 2, squeeze=False)
    for (left, right), (path, delta) in zip(rows, deltas.items(), strict=True):
        _draw_delta(left, delta, path)
        _draw_spectrum(right, delta, with_cosines)
    figure.savefig(file, dpi=110)


def _draw_delta(axes: Axes, delta: Tensor, path: str) -> None:
    values = pooled(delta)
    top = float(values.abs().max()) or 1.0
    extent = _extent(delta)
    image = axes.imshow(
        values.numpy(), cmap="RdBu_r", vmin=-top, vmax=top, aspect="auto", extent=extent
    )
    axes.set_title(path, fontsize=8)
    axes.set_xlabel("in")
    axes.set_ylabel("out")
    _bar(axes, image, "ΔW")


def _draw_spectrum(axes: Axes, delta: Tensor, with_cosines: bool) -> None:
    magnitudes = pooled(cosine_magnitudes(delta) if with_cosines else fourier_magnitudes(delta))
    decades = torch.log10(magnitudes / (float(magnitudes.max()) or 1.0)).clamp(min=-_DECADES)
    extent = _extent(delta) if with_cosines else _centred(delta)
    image = axes.imshow(
        decades.numpy(), cmap="magma", vmin=-_DECADES, vmax=0.0, aspect="auto", extent=extent
    )
    axes.set_title("DCT-II" if with_cosines else "Fourier transform", fontsize=8)
    axes.set_xlabel("frequency along in")
    axes.set_ylabel("frequency along out")
    _bar(axes, image, "log10 of magnitude / largest")


def _bar(axes: Axes, image: object, label: str) -> None:
    figure = axes.figure
    assert isinstance(figure, Figure)
    figure.colorbar(image, ax=axes, label=label)  # type: ignore[arg-type]


def _extent(delta: Tensor) -> tuple[float, float, float, float]:
    return (0.0, float(delta.shape[1]), float(delta.shape[0]), 0.0)


def _centred(delta: Tensor) -> tuple[float, float, float, float]:
    out, in_ = delta.shape
    return (-(in_ // 2), -(in_ // 2) + in_, -(out // 2) + out, -(out // 2))
