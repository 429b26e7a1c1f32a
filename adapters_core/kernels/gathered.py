"""Gather, multiply, scatter: a sparse real core applied to rows of different adapters.

For row t with slot s, and coefficient k of the packed layer:

    z[t, row[k]] += bank[s, k] * x[t, col[k]]

The real sibling of spectral.py.
"""

import numba
import torch
from torch import Tensor

from adapters_core.contract.method import PackedLayer


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _gathered_loop(  # type: ignore[no-untyped-def]
    x, buffer, offset, slots, cols, rows, out
):  # pragma: no cover - compiled
    for t in range(x.shape[0]):
        bank = buffer[slots[t], offset:]
        for k in range(cols.shape[0]):
            out[t, rows[k]] += bank[k] * x[t, cols[k]]


def gathered_rows(
    x: Tensor, layer: PackedLayer, slots: Tensor, cols: Tensor, rows: Tensor, size: int
) -> Tensor:
    """Return `[T, size]` in x's dtype: every row through its own slot's sparse core.

    Args:
        x: `[T, C]`.
        layer: the packed coefficients, one per position, in the order of `cols` and `rows`.
        slots: int64 `[T]`.
        cols: int32 `[n]`, the entry of x each coefficient reads.
        rows: int32 `[n]`, the entry of the result each coefficient writes.
        size: how many entries the result has.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return gathered_rows_reference(x, layer, slots, cols, rows, size)
    out = torch.zeros(x.shape[0], size)
    _gathered_loop(
        x.numpy(),
        layer.buffer.numpy(),
        layer.offset,
        slots.numpy(),
        cols.numpy(),
        rows.numpy(),
        out.numpy(),
    )
    return out


def gathered_rows_reference(
    x: Tensor, layer: PackedLayer, slots: Tensor, cols: Tensor, rows: Tensor, size: int
) -> Tensor:
    """Return what `gathered_rows` does, in torch operations that run on any device and dtype."""
    read = x[:, cols.long()] * layer.of(slots).to(x.dtype)  # [T, n]
    out = torch.zeros(x.shape[0], size, dtype=x.dtype, device=x.device)
    return out.index_add_(1, rows.long(), read)
