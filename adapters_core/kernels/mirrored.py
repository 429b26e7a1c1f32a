"""Rows of an even matrix in both orders turned round: row p of the result is row -p, column -q.

y[i, 0] = x[B - 1 - i, 0],   y[i, q] = x[B - 1 - i, N - q]
"""

import numba
import numpy as np
import torch
from torch import Tensor

from adapters_core.kernels.simd16 import LANES, backwards, load, store


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _mirror_loop(x, out):  # type: ignore[no-untyped-def]
    rows, size = x.shape  # pragma: no cover - compiled
    lanes, count = np.uintp(LANES), np.uintp(size)
    for i in range(rows):
        source, target = x[rows - 1 - i], out[i]
        target[0] = source[0]
        q = np.uintp(1)
        while q + lanes <= count:
            store(target, q, backwards(load(source, count - q - lanes + np.uintp(1))))
            q += lanes
        while q < count:
            target[q] = source[count - q]
            q += np.uintp(1)


def mirrored_rows(x: Tensor) -> Tensor:
    """Return x `[B, N]` with its rows in reverse order and columns 1..N-1 in reverse order."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return mirrored_rows_reference(x)
    out = np.empty(x.shape, dtype=np.float32)
    _mirror_loop(x.contiguous().numpy(), out)
    return torch.from_numpy(out)


def mirrored_rows_reference(x: Tensor) -> Tensor:
    """Return what `mirrored_rows` does, in torch operations that run on any device and dtype."""
    return x.flip(0, 1).roll(1, 1)
