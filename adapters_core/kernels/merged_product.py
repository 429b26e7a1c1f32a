"""A weight plus a product of two narrow matrices, on one thread a part.

    out[p, q] = golden[p, q] + scale sum_k up[p, k] down[k, q],   k ascending

Four rows at a time, sixteen numbers of each in a register: the narrow matrix is read once for four
rows, golden is read and out written once, past the caches. A library's product needs all cores for
that time, and its bits may depend on how many there are.
"""

from collections.abc import Callable
from functools import partial

import numba
import numpy as np
from torch import Tensor

from adapters_core.kernels.simd16 import LANES, add, load, mul, splat, stream, streamed

#: With larger ranks a library's blocks are faster.
MOST_RANKS = 64
#: Numbers that one part of a merge writes: a quarter of a millisecond.
_PART_NUMBERS = 1 << 18


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _product_loop(first, last, up, down, rank, size, golden, out):  # type: ignore[no-untyped-def]
    lanes, step = np.uintp(LANES), np.uintp(rank)  # pragma: no cover - compiled
    for row in range(first, last, 4):
        # Behind the last row that one is made again, of the same numbers.
        p0, p1 = row, min(row + 1, last - 1)
        p2, p3 = min(row + 2, last - 1), min(row + 3, last - 1)
        u0, u1 = np.uintp(p0 * rank), np.uintp(p1 * rank)
        u2, u3 = np.uintp(p2 * rank), np.uintp(p3 * rank)
        o0, o1 = np.uintp(p0 * size), np.uintp(p1 * size)
        o2, o3 = np.uintp(p2 * size), np.uintp(p3 * size)
        at = np.uintp(0)
        for _ in range(0, size, LANES):
            s0, s1 = splat(np.float32(0)), splat(np.float32(0))
            s2, s3 = splat(np.float32(0)), splat(np.float32(0))
            source, k = at * step, np.uintp(0)
            while k < step:
                d = load(down, source)
                s0, s1 = add(s0, mul(splat(up[u0 + k]), d)), add(s1, mul(splat(up[u1 + k]), d))
                s2, s3 = add(s2, mul(splat(up[u2 + k]), d)), add(s3, mul(splat(up[u3 + k]), d))
                source, k = source + lanes, k + np.uintp(1)
            stream(out, o0 + at, add(load(golden, o0 + at), s0))
            stream(out, o1 + at, add(load(golden, o1 + at), s1))
            stream(out, o2 + at, add(load(golden, o2 + at), s2))
            stream(out, o3 + at, add(load(golden, o3 + at), s3))
            at += lanes
    streamed()


def product_parts(
    up: Tensor, down: Tensor, golden: Tensor, out: Tensor
) -> list[Callable[[], None]]:
    """Return the parts of `out = golden + up @ down`; each writes rows of its own.

    Args:
        up: float32 `[M, r]`, scaled, on a CPU.
        down: float32 `[r, N]`, N a multiple of sixteen; numbers are read many times, so r is small.
        golden: `[M, N]`, as `can_stream` wants it.
        out: `[M, N]`, likewise; may not overlap golden.
    """
    rank, size = down.shape
    # Sixteen columns of all ranks lie side by side: at a distance of N they may share cache lines.
    tiles = down.reshape(rank, size // LANES, LANES).transpose(0, 1).reshape(-1).numpy()
    arrays = (up.reshape(-1).numpy(), tiles, rank, size)
    matrices = (golden.numpy().reshape(-1), out.numpy().reshape(-1))
    num_rows, at_once = out.shape[0], max(4, _PART_NUMBERS // size // 4 * 4)
    return [
        partial(_product_loop, first, min(first + at_once, num_rows), *arrays, *matrices)
        for first in range(0, num_rows, at_once)
    ]
