"""Dense sums of located cosines, and their gradients: what LoCA's updates and training are made of.

    delta = idct2( S ),   S[rows[k], cols[k]] += values[k], else 0

The first transform runs over the columns that hold a value, the second over all rows. On a CPU the
rows come in blocks that stay in cache: a whole matrix between two steps would be fresh pages of
the system, which cost more than the transforms. Rows are made in the order in which the first
transform leaves them (even ones forwards, then odd ones backwards), so nothing is put in order.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters_core.contract.layer import Shape
from adapters_core.gpu_kernels.lines import Line
from adapters_core.gpu_kernels.merge_plans import spectral_terms
from adapters_core.kernels.cosine import unfold_into
from adapters_core.kernels.cosine_blocks import block_spectra, sparse_spectra
from adapters_core.transforms.cosine import CosineTable, dct, idct

#: Rows that are made at a time.
_BLOCK_ROWS = 128


@dataclass(frozen=True)
class CosineBasis:
    """What all LoCA adapters share on layers of one shape: the transforms' tables and dtype."""

    out: CosineTable
    in_: CosineTable
    device: torch.device
    dtype: torch.dtype

    @property
    def has_blocks(self) -> bool:
        """Return whether deltas are made in blocks: on a CPU, in float32, by Fourier transforms."""
        is_plain = self.device.type == "cpu" and self.dtype == torch.float32
        return is_plain and self.out.turn is not None and self.in_.turn is not None


@dataclass(frozen=True)
class Cosines:
    """One layer's sum. Positions are inside the layer: compiled loops do not ask.

    Args:
        values: `[n]`, in the basis's dtype and scaled.
        rows: int64 `[n]`.
        cols: int64 `[n]`.
    """

    values: Tensor
    rows: Tensor
    cols: Tensor


def sums_of(layers: Sequence[Cosines], shape: Shape, basis: CosineBasis) -> Tensor:
    """Return the layers' deltas, float32 `[L, out, in_]`."""
    if not basis.has_blocks:
        return _whole_sums(layers, shape, basis).float()
    sums = torch.empty(len(layers), *shape)
    for layer, full in zip(layers, sums, strict=True):
        for index, block in _blocks(layer, shape, basis):
            full[index] = block
    return sums


def add_sum(layer: Cosines, golden: Tensor, out: Tensor, shape: Shape, basis: CosineBasis) -> None:
    """Write `golden + delta` to `out`, of golden's dtype, rounded once; the basis has blocks."""
    for index, block in _blocks(layer, shape, basis):
        torch.add(golden[index], block, out=out[index])


def merge_sums(
    layers: Sequence[Cosines], golden: Sequence[Tensor], out: Sequence[Tensor], line: Line
) -> None:
    """Write `golden + delta` of several layers to `out` by a kernel; `line` is of their rows."""
    from adapters_core.gpu_kernels.merging import merge_spectra

    num_rows = golden[0].shape[0]
    rows = torch.stack([one.rows for one in layers]).int()
    cols = torch.stack([one.cols for one in layers]).int()
    # Half of the two scales: sqrt(2/M) sqrt(2/N), and sqrt(1/2) of that for frequency 0.
    values = torch.stack([one.values for one in layers]) / math.sqrt(num_rows * line.size)
    for frequencies in (rows, cols):
        values = torch.where(frequencies == 0, math.sqrt(0.5) * values, values)
    merge_spectra(spectral_terms(rows, cols, num_rows, line), values, golden, out)


def _blocks(layer: Cosines, shape: Shape, basis: CosineBasis) -> Iterator[tuple[slice, Tensor]]:
    """Yield which rows of the delta these are and the rows; the next block overwrites them."""
    waves, columns = _waves(layer, shape, basis)
    assert basis.in_.turn is not None
    turn, size = basis.in_.turn[2:], shape.in_
    spectra = torch.empty(_BLOCK_ROWS, 2 * turn.shape[1])
    folded, rows = torch.empty(2, _BLOCK_ROWS, size)
    for first, last, index, is_odd in _row_blocks(shape.out):
        count = last - first
        half = block_spectra(waves, first, columns, turn, size, spectra[:count])
        torch.fft.irfft(half, n=size, norm="forward", out=folded[:count])
        unfold_into(folded[:count], rows[:count], backwards=is_odd)
        yield index, rows[:count]


def _row_blocks(num_rows: int) -> Iterator[tuple[int, int, slice, bool]]:
    """Yield first and last row of a block in folded order, where it goes, whether backwards."""
    middle = (num_rows + 1) // 2
    for start, stop in ((0, middle), (middle, num_rows)):
        for first in range(start, stop, _BLOCK_ROWS):
            last = min(first + _BLOCK_ROWS, stop)
            is_odd = start > 0
            if is_odd:
                index = slice(2 * (num_rows - last) + 1, 2 * (num_rows - first), 2)
            else:
                index = slice(2 * first, 2 * last - 1, 2)
            yield first, last, index, is_odd


def _waves(layer: Cosines, shape: Shape, basis: CosineBasis) -> tuple[Tensor, Tensor]:
    """Return the columns that hold a value, folded `[C, M]`, and which they are, uint32 `[C]`."""
    assert basis.out.turn is not None
    turn, size = basis.out.turn[2:], shape.out
    order = torch.argsort(layer.cols)
    columns, lines = torch.unique_consecutive(layer.cols[order], return_inverse=True)
    values, positions = layer.values[order], layer.rows[order]
    waves = torch.empty(columns.numel(), size)
    firsts = torch.arange(0, columns.numel(), _BLOCK_ROWS)
    starts = [*torch.searchsorted(lines, firsts).tolist(), lines.numel()]
    for first, start, stop in zip(firsts.tolist(), starts, starts[1:], strict=False):
        block, part = waves[first : first + _BLOCK_ROWS], slice(start, stop)
        half = sparse_spectra(
            values[part], lines[part] - first, positions[part], len(block), turn, size
        )
        torch.fft.irfft(half, n=size, norm="forward", out=block)
    return waves, columns.to(torch.uint32)


def _whole_sums(layers: Sequence[Cosines], shape: Shape, basis: CosineBasis) -> Tensor:
    """Return the deltas of all layers in the basis's dtype, transformed together."""
    values = torch.stack([layer.values for layer in layers])
    rows = torch.stack([layer.rows for layer in layers])
    cols = torch.stack([layer.cols for layer in layers])  # each [L, n]
    # A column of one layer is a row here; only those that hold a value are transformed.
    first = torch.arange(len(layers), device=cols.device)[:, None] * shape.in_
    columns, inverse = torch.unique(first + cols, return_inverse=True)
    cells = values.new_zeros(columns.numel() * shape.out)
    cells = cells.index_add(0, (inverse * shape.out + rows).view(-1), values.view(-1))
    waves = idct(cells.view(-1, shape.out), basis.out)
    full = values.new_zeros(len(layers), shape.out, shape.in_)
    full[columns // shape.in_, :, columns % shape.in_] = waves
    return idct(full.flatten(0, 1), basis.in_).view(full.shape)


def whole_positions(positions: Tensor, shape: Shape) -> Tensor:
    """Return positions `[2, n]` rounded to int64 inside the layer; one that is NaN becomes 0."""
    whole = positions.round().long() if positions.is_floating_point() else positions.long()
    ends = whole.new_tensor([[shape.out - 1], [shape.in_ - 1]])
    return whole.clamp(min=0).minimum(ends)


class LocatedCosines(torch.autograd.Function):
    """A layer's delta, differentiable in its values and, by differences, in their positions.

    With K the two-dimensional cosine transform of the gradient G that arrives,

        dL/dvalue[k] = K[r, c]
        dL/drow[k]   = clamp( value[k] / 2 (K[r + 1, c] - K[r - 1, c]), -1, 1 )

    and likewise for columns: half the change of the loss, to first order in G, when the coefficient
    moves from one neighbour to the other. At an edge the position itself stands for the neighbour
    that is missing, and the difference is halved all the same.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        values: Tensor,
        positions: Tensor,
        shape: Shape,
        basis: CosineBasis,
    ) -> Tensor:
        """Return the delta, float32 `[out, in_]`.

        Args:
            ctx: torch's.
            values: `[n]`, scaled.
            positions: `[2, n]`, rows then columns: integers, or numbers that are rounded.
            shape: the layer's; all positions are in it.
            basis: of the shape.
        """
        rows, cols = whole_positions(positions, shape)
        ctx.save_for_backward(values, rows, cols)
        ctx.shape, ctx.basis = shape, basis  # type: ignore[attr-defined]
        layer = Cosines(values.to(basis.dtype), rows, cols)
        return sums_of([layer], shape, basis)[0]

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor
    ) -> tuple[Tensor, Tensor | None, None, None]:
        """Return the gradients of values and, where asked for, positions."""
        values, rows, cols = ctx.saved_tensors  # type: ignore[attr-defined]
        shape, basis = ctx.shape, ctx.basis  # type: ignore[attr-defined]
        if not ctx.needs_input_grad[1]:  # type: ignore[attr-defined]
            read = _spectrum_at(gradients[0], [(rows, cols)], basis)
            return read[0].to(values.dtype), None, None, None
        here, *around = _spectrum_at(gradients[0], _around(rows, cols, shape), basis)
        above, below, left, right = around
        slopes = torch.stack([below - above, right - left]) * (values / 2)
        return here.to(values.dtype), slopes.clamp(-1, 1).to(values.dtype), None, None


def _around(rows: Tensor, cols: Tensor, shape: Shape) -> list[tuple[Tensor, Tensor]]:
    """Return each position itself, and its neighbours above, below, left and right."""
    return [
        (rows, cols),
        ((rows - 1).clamp(min=0), cols),
        ((rows + 1).clamp(max=shape.out - 1), cols),
        (rows, (cols - 1).clamp(min=0)),
        (rows, (cols + 1).clamp(max=shape.in_ - 1)),
    ]


def _spectrum_at(
    gradient: Tensor, positions: Sequence[tuple[Tensor, Tensor]], basis: CosineBasis
) -> list[Tensor]:
    """Return the two-dimensional cosine transform of `[out, in_]` at some positions, each `[n]`."""
    waves = dct(gradient.to(basis.dtype), basis.in_)
    columns = torch.unique(torch.cat([cols for _, cols in positions]))
    full = dct(waves[:, columns].T.contiguous(), basis.out)  # [C, M]
    return [full[torch.searchsorted(columns, cols), rows] for rows, cols in positions]
