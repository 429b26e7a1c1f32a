"""Pictures of the methods' pages: the numbers of an adapter beside the update they make."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method
from adapters_core.methods import C3A, CLoRA, FourierFT, LoCA, LoRA, SHiRA, VeRA, WaveletFT

SHAPE = Shape(64, 96)
CPU = torch.device("cpu")
#: What a cell of the left picture is not part of.
NOTHING = float("nan")
_COLOURS = 48


class Shown(NamedTuple):
    """Args: core: a matrix of the adapter's numbers. said: its title. delta: `[out, in]`."""

    core: Tensor
    said: str
    delta: Tensor


def draw_all(folder: Path) -> None:
    """Write a picture for each method."""
    for name, show in SHOWN.items():
        draw(show(torch.Generator().manual_seed(7)), folder / f"{name}.png")


def draw(shown: Shown, file: Path) -> None:
    """Write one picture: the core at the left, ΔW at the right, each on its own scale."""
    figure = Figure(figsize=(7.2, 2.7), layout="constrained")
    left, right = figure.subplots(1, 2)
    _matrix(left, shown.core, shown.said)
    _matrix(right, shown.delta, "ΔW, 64 x 96")
    out = io.BytesIO()
    figure.savefig(out, dpi=100)
    few = Image.open(out).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    few.save(file, optimize=True)


def _matrix(axes: Axes, values: Tensor, said: str) -> None:
    shown = values.numpy()
    top = float(np.nanmax(np.abs(shown))) or 1.0
    axes.set_facecolor("#e8e8e8")
    axes.imshow(shown, cmap="RdBu_r", vmin=-top, vmax=top, interpolation="nearest", aspect="auto")
    axes.set_title(said, fontsize=9)
    axes.tick_params(labelsize=7)


def _delta(method: Method, values: dict[str, Tensor]) -> Tensor:
    return method.delta(values, SHAPE, method.basis(SHAPE, CPU, torch.float32))


def _at(rows: Tensor, cols: Tensor, values: Tensor) -> Tensor:
    """Return a matrix that is nothing but at some cells."""
    core = torch.full(SHAPE, NOTHING)
    core[rows, cols] = values
    return core


def _corner(up: Tensor, down: Tensor) -> Tensor:
    """Return two thin matrices as they multiply: one at the left, one above."""
    out, rank = up.shape
    canvas = torch.full((rank + 2 + out, rank + 2 + down.shape[1]), NOTHING)
    canvas[rank + 2 :, :rank] = up / up.abs().max()
    canvas[:rank, rank + 2 :] = down / down.abs().max()
    return canvas


def fourierft(generator: torch.Generator) -> Shown:
    """Return six Fourier coefficients, low and high frequencies alike."""
    method = FourierFT(n=6)
    values = torch.randn(6, generator=generator)
    flat = method.basis(SHAPE, CPU, torch.float32).positions
    core = _at(flat // SHAPE.in_, flat % SHAPE.in_, values)
    return Shown(core, "6 coefficients in the spectrum", _delta(method, {_name(method): values}))


def loca(generator: torch.Generator) -> Shown:
    """Return 24 cosine coefficients where training might have put them: at low frequencies."""
    method = LoCA(n=24)
    rows, cols = ((torch.rand(24, generator=generator) ** 2 * 0.5 * size).long() for size in SHAPE)
    values = torch.randn(24, generator=generator)
    given = {"loca_spectrum": values, "loca_locations": torch.stack([rows, cols])}
    return Shown(_at(rows, cols, values), "24 coefficients, places learned", _delta(method, given))


def waveletft(generator: torch.Generator) -> Shown:
    """Return 60 wavelet coefficients of one level."""
    method = WaveletFT(n=60, scale=1.0, wavelet="db2")
    values = torch.randn(60, generator=generator)
    flat = torch.randperm(SHAPE.out * SHAPE.in_, generator=torch.Generator().manual_seed(777))[:60]
    core = _at(flat // SHAPE.in_, flat % SHAPE.in_, values)
    return Shown(core, "60 coefficients, four quadrants", _delta(method, {_name(method): values}))


def c3a(generator: torch.Generator) -> Shown:
    """Return the kernels of 2 x 3 blocks."""
    method = C3A(block_size=32)
    kernel = torch.randn(2, 3, 32, generator=generator)
    return Shown(
        kernel.reshape(2, 96), "2 x 3 kernels of 32", _delta(method, {_name(method): kernel})
    )


def shira(generator: torch.Generator) -> Shown:
    """Return the weights of a sparse update, and where they lie."""
    method = SHiRA(r=1)
    count = SHAPE.out + SHAPE.in_
    flat = torch.randperm(SHAPE.out * SHAPE.in_, generator=generator)[:count]
    rows, cols = flat // SHAPE.in_, flat % SHAPE.in_
    values = torch.randn(count, generator=generator)
    given = {"shira_weight": values, "shira_indices": torch.stack([rows, cols]).int()}
    return Shown(_at(rows, cols, values), f"{count} weights at their places", _delta(method, given))


def frod(generator: torch.Generator) -> Shown:
    """Return a diagonal and a sparse matrix in the basis of a random weight."""
    width = SHAPE.in_
    stacked = torch.randn(4 * SHAPE.out, width, generator=generator)
    v = torch.linalg.svd(stacked).Vh.T
    projected = stacked[: SHAPE.out] @ v
    lengths = projected.norm(dim=0)
    core = torch.diag(0.3 * lengths * torch.randn(width, generator=generator))
    flat = torch.randperm(width * width, generator=generator)[:92]
    core.view(-1)[flat] += torch.randn(92, generator=generator) * lengths.mean() * 0.3
    shown = torch.where(core == 0, torch.tensor(NOTHING), core)
    return Shown(shown, "diagonal and S, in the shared basis", projected / lengths @ core @ v.T)


def tinylora(generator: torch.Generator) -> Shown:
    """Return R, between the largest singular directions of a random weight."""
    u, s, vh = torch.linalg.svd(_smooth(generator), full_matrices=False)
    projections = torch.randn(16, 4, 4, generator=generator)
    core = torch.einsum("u,urc->rc", torch.randn(16, generator=generator), projections)
    up, down = u[:, :4] * s[:4].sqrt(), s[:4].sqrt()[:, None] * vh[:4]
    return Shown(core, "R, 4 x 4, of 16 numbers", up @ core @ down)


def vera(generator: torch.Generator) -> Shown:
    """Return b at the left and d above, with the random matrices that they scale."""
    method = VeRA(r=12)
    b, d = torch.randn(SHAPE.out, generator=generator), torch.randn(12, generator=generator)
    delta = _delta(method, {"vera_lambda_b": b, "vera_lambda_d": d})
    core = torch.full((SHAPE.out + 2, 14), NOTHING)
    core[2:, 0], core[0, 2:] = b, d
    return Shown(core, "b (column) and d (row)", delta)


def lora(generator: torch.Generator) -> Shown:
    """Return B at the left and A above."""
    method = LoRA(r=4, alpha=4.0)
    up, down = (torch.randn(*s, generator=generator) for s in ((SHAPE.out, 4), (4, SHAPE.in_)))
    given = {"lora_A.weight": down, "lora_B.weight": up}
    return Shown(_corner(up, down), "B (left) and A (above), r = 4", _delta(method, given))


def dora(generator: torch.Generator) -> Shown:
    """Return a LoRA's factors, and the update of a weight whose rows they turn and stretch."""
    weight = _smooth(generator)
    up, down = (torch.randn(*s, generator=generator) for s in ((SHAPE.out, 4), (4, SHAPE.in_)))
    turned = weight + 0.1 * up @ down
    length = weight.norm(dim=1) * (1 + 0.3 * torch.randn(SHAPE.out, generator=generator))
    core = torch.cat([_corner(up, down), torch.full((70, 2), NOTHING)], dim=1)
    core[6:, -1] = length / length.max()
    delta = (length / turned.norm(dim=1))[:, None] * turned - weight
    return Shown(core, "B, A and the lengths m (right)", delta)


def clora(generator: torch.Generator) -> Shown:
    """Return the maps of four spaces as the blocks between the spaces."""
    method = CLoRA(r=4, num_spaces=4)
    given = method.init(SHAPE, generator)
    maps = torch.randn(4, 4, 4, generator=generator)
    core = torch.full((16, 16), NOTHING)
    for number in range(4):
        block = slice(4 * number, 4 * number + 4)
        core[block, block] = maps[number]
    return Shown(core, "four maps, 4 x 4 each", _delta(method, given | {"clora_map": maps}))


def _smooth(generator: torch.Generator) -> Tensor:
    """Return a weight with few large directions, as trained ones have."""
    up = torch.randn(SHAPE.out, 12, generator=generator)
    down = torch.randn(12, SHAPE.in_, generator=generator)
    return (up / torch.arange(1, 13)) @ down


def _name(method: Method) -> str:
    [name] = method.tensors(SHAPE)
    return name


SHOWN: dict[str, Callable[[torch.Generator], Shown]] = {
    "fourierft": fourierft,
    "loca": loca,
    "waveletft": waveletft,
    "c3a": c3a,
    "shira": shira,
    "frod": frod,
    "tinylora": tinylora,
    "vera": vera,
    "lora": lora,
    "dora": dora,
    "clora": clora,
}
