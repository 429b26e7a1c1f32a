"""A low-rank update applied to single rows of different adapters.

For row t with slot s: y[t] = sum_r (A_s[r] . x[t]) * B_s[r], A_s `[r, in]` and B_s `[r, out]` being
the two halves of the packed layer. torch would first copy every row's factors together.
"""

import numba
import numpy as np
import torch
from torch import Tensor

from adapters_core.contract.method import PackedLayer, Shape


@numba.njit(cache=True, nogil=True, boundscheck=False, fastmath={"reassoc", "contract"})
def _lowrank_loop(x, buffer, offset, slots, rank, out):  # type: ignore[no-untyped-def]
    in_, size = x.shape[1], out.shape[1]  # pragma: no cover - compiled
    for t in range(x.shape[0]):
        for r in range(rank):
            down = buffer[slots[t], offset + r * in_ : offset + (r + 1) * in_]
            start = offset + rank * in_ + r * size
            up = buffer[slots[t], start : start + size]
            hidden = np.float32(0.0)
            for i in range(in_):
                hidden += down[i] * x[t, i]
            for o in range(size):
                out[t, o] += hidden * up[o]


def lowrank_rows(x: Tensor, layer: PackedLayer, slots: Tensor, shape: Shape) -> Tensor:
    """Return `[T, out]`: every row of x `[T, in]` through the factors of its own slot."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return lowrank_rows_reference(x, layer, slots, shape)
    out = np.zeros((x.shape[0], shape.out), dtype=np.float32)
    rank = layer.length // (shape.in_ + shape.out)
    _lowrank_loop(
        x.contiguous().numpy(), layer.buffer.numpy(), layer.offset, slots.numpy(), rank, out
    )
    return torch.from_numpy(out)


def lowrank_rows_reference(x: Tensor, layer: PackedLayer, slots: Tensor, shape: Shape) -> Tensor:
    """Return what `lowrank_rows` does, in torch operations that run on any device and dtype."""
    rank = layer.length // (shape.in_ + shape.out)
    packed = layer.of(slots).to(x.dtype)  # [T, r * (in + out)]
    down = packed[:, : rank * shape.in_].view(-1, rank, shape.in_)
    up = packed[:, rank * shape.in_ :].view(-1, rank, shape.out)
    hidden = torch.bmm(down, x[:, :, None])[:, :, 0]  # [T, r]
    return torch.bmm(hidden[:, None, :], up)[:, 0, :]
