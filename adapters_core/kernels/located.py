"""Gather, multiply, scatter at locations of the adapter's own: a sparse matrix a row.

For row t with slot s, whose packed layer holds n values, then n rows, then n columns:

    z[t, row_s[k]] += value_s[k] * x[t, col_s[k]]

The locations stand in the bank as float32, which holds integers up to 2^24 exactly. The compiled
loop checks no bounds: whoever packs a layer has checked its locations.
"""

import numba
import torch
from torch import Tensor

from adapters_core.contract.method import PackedLayer

#: Integers below this are exact in float32.
EXACT_INTEGERS = 1 << 24


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _located_loop(x, buffer, offset, slots, n, out):  # type: ignore[no-untyped-def]
    for t in range(x.shape[0]):  # pragma: no cover - compiled
        values = buffer[slots[t], offset : offset + n]
        rows = buffer[slots[t], offset + n : offset + 2 * n]
        cols = buffer[slots[t], offset + 2 * n : offset + 3 * n]
        for k in range(n):
            out[t, int(rows[k])] += values[k] * x[t, int(cols[k])]


def located_rows(x: Tensor, layer: PackedLayer, slots: Tensor, size: int) -> Tensor:
    """Return `[T, size]`: every row of x `[T, in]` through the sparse matrix of its own slot.

    Args:
        x: `[T, in]`.
        layer: `[slots, 3n]`, values, rows and columns.
        slots: int64 `[T]`.
        size: what the rows are smaller than.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return located_rows_reference(x, layer, slots, size)
    out = torch.zeros(x.shape[0], size)
    _located_loop(
        x.numpy(), layer.buffer.numpy(), layer.offset, slots.numpy(), layer.length // 3, out.numpy()
    )
    return out


def located_rows_reference(x: Tensor, layer: PackedLayer, slots: Tensor, size: int) -> Tensor:
    """Return what `located_rows` does, in torch operations that run on any device and dtype."""
    values, rows, cols = layer.of(slots).chunk(3, dim=1)  # each [T, n]
    read = values.to(x.dtype) * x.gather(1, cols.long())
    return x.new_zeros(x.shape[0], size).scatter_add_(1, rows.long(), read)
