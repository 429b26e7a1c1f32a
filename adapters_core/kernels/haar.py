"""Blocks of two by two cells: what single Haar coefficients do to rows of different adapters.

For row t with slot s, and coefficient k of the packed layer, whose atoms hold the numbers p, q of
two rows and v, w of two columns:

    u = bank[s, k] * (v[k] * x[t, c[k]] + w[k] * x[t, c'[k]])
    y[t, r[k]] += p[k] * u,   y[t, r'[k]] += q[k] * u

No transform at all: with fewer coefficients than a line has cells this is less than one.
"""

from dataclasses import dataclass

import numba
import numpy as np
import torch
from torch import Tensor

from adapters_core.contract.method import PackedLayer


@dataclass(frozen=True)
class Blocks:
    """Two rows and two columns of each coefficient, in the packed order.

    Args:
        row_cells, col_cells: int32 `[n, 2]`, all inside the layer.
        row_numbers, col_numbers: `[n, 2]`, zero where an edge cuts the second cell.
    """

    row_cells: Tensor
    col_cells: Tensor
    row_numbers: Tensor
    col_numbers: Tensor


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _haar_loop(  # type: ignore[no-untyped-def]
    x, buffer, offset, slots, row_cells, col_cells, row_numbers, col_numbers, y
):  # pragma: no cover - compiled
    for t in range(x.shape[0]):
        bank, line, out = buffer[slots[t], offset:], x[t], y[t]
        out[:] = 0
        for k in range(row_cells.shape[0]):
            read = col_numbers[k, 0] * line[col_cells[k, 0]]
            read = bank[k] * (read + col_numbers[k, 1] * line[col_cells[k, 1]])
            out[row_cells[k, 0]] += row_numbers[k, 0] * read
            out[row_cells[k, 1]] += row_numbers[k, 1] * read


def haar_rows(x: Tensor, layer: PackedLayer, slots: Tensor, blocks: Blocks, size: int) -> Tensor:
    """Return `[T, size]` in x's dtype: every row of x through the blocks of its own slot.

    Args:
        x: `[T, in]`.
        layer: the packed coefficients, one per block.
        slots: int64 `[T]`.
        blocks: which rows and columns, of all adapters alike.
        size: how many rows the layer has.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return haar_rows_reference(x, layer, slots, blocks, size)
    y = torch.empty(x.shape[0], size)
    _haar_loop(
        x.contiguous().numpy(),
        layer.buffer.numpy(),
        layer.offset,
        slots.numpy(),
        blocks.row_cells.numpy().view(np.uint32),  # no loop looks for negative ones
        blocks.col_cells.numpy().view(np.uint32),
        blocks.row_numbers.numpy(),
        blocks.col_numbers.numpy(),
        y.numpy(),
    )
    return y


def haar_rows_reference(
    x: Tensor, layer: PackedLayer, slots: Tensor, blocks: Blocks, size: int
) -> Tensor:
    """Return what `haar_rows` does, in torch operations that run on any device and dtype."""
    read = (x[:, blocks.col_cells.long()] * blocks.col_numbers.to(x.dtype)).sum(-1)  # [T, n]
    read = read * layer.of(slots).to(x.dtype)
    written = (read[..., None] * blocks.row_numbers.to(x.dtype)).flatten(1)
    return x.new_zeros(x.shape[0], size).index_add_(1, blocks.row_cells.long().flatten(), written)
