"""Dense sums of a few real Fourier coefficients, sixteen rows at a time, on top of a weight.

    out[p, q] = golden[p, q] + 2 sum_l v_l cos( 2 pi (p j_l / M + q k_l / N) )

Row p's half spectrum has `v_l e^(2 pi i p j_l / M)` at column k_l (conjugated, at N - k_l, beyond
the middle): sixteen neighbouring rows turn from the first one's by the same sixteen steps, so no
transform is needed along the columns. The rows' own is lane_fft.py's, and row M - p is row p
mirrored, so that half of the rows are written twice and computed once. One thread, and nothing of
the matrix' size but the matrix: a merge leaves the other cores to the running batch.
"""

import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from adapters_core.contract.layer import Shape
from adapters_core.kernels.lane_fft import (
    LaneTransform,
    has_lane_transform,
    lane_fft,
    lane_transform,
)
from adapters_core.kernels.simd16 import (
    LANES,
    add,
    backwards,
    interleave_high,
    interleave_low,
    load,
    mul,
    splat,
    store,
    sub,
    transpose,
)

#: Pairs of numbers of sixteen rows that are turned round at a time; a multiple of sixteen.
_CHUNK = 128
#: A coefficient's steps take 128 bytes; with more of them the transforms of columns are cheaper.
_MOST_COEFFICIENTS = 1 << 14


@dataclass(frozen=True)
class SumsPlan:
    """What all sums at the same positions share.

    Args:
        shape: M x N.
        order: int64 `[n]`, the coefficients by column.
        cols: uint32 `[n]`, their columns, folded to 0..N/2.
        rows: int64 `[n]`, their rows.
        signs: float32 `[n]`, of the imaginary part: -1 where the column was folded, 0 at both ends.
        weights: float32 `[n]`, 1, and 2 at both ends.
        steps: float32 `[2, n, 16]`, cosine and sine of 2 pi i j / M for i = 0..15.
        waves: float32 `[2, M]`, cosine and sine of 2 pi t / M.
        join: the same of 2 pi k / N, `[2, N / 2 + 1]`.
        backward: the transform of N / 2.
    """

    shape: Shape
    order: Any
    cols: Any
    rows: Any
    signs: Any
    weights: Any
    steps: Any
    waves: Any
    join: Any
    backward: LaneTransform


def has_lane_sums(shape: Shape, n: int) -> bool:
    """Return whether rows of this length can be made sixteen at a time of n coefficients."""
    fits = shape.in_ % (2 * LANES) == 0 and has_lane_transform(shape.in_ // 2)
    return fits and n <= _MOST_COEFFICIENTS


def sums_plan(flat: Tensor, shape: Shape) -> SumsPlan:
    """Return the plan of the row-major positions `flat` `[n]` of a shape that `has_lane_sums`."""
    rows, cols = np.divmod(flat.cpu().numpy(), shape.in_)
    folded = np.minimum(cols, shape.in_ - cols)
    order = np.argsort(folded, kind="stable")
    rows, cols, folded = rows[order], cols[order], folded[order]
    is_end = (folded == 0) | (2 * folded == shape.in_)
    turns = np.arange(LANES) * rows[:, None] % shape.out / shape.out
    return SumsPlan(
        shape=shape,
        order=order,
        cols=folded.astype(np.uint32),
        rows=rows.astype(np.int64),
        signs=np.where(is_end, 0, np.where(folded != cols, -1, 1)).astype(np.float32),
        weights=np.where(is_end, 2.0, 1.0).astype(np.float32),
        steps=_waves(turns),
        waves=_waves(np.arange(shape.out) / shape.out),
        join=_waves(np.arange(shape.in_ // 2 + 1) / shape.in_),
        backward=lane_transform(shape.in_ // 2, backward=True),
    )


def _waves(turns: Any) -> Any:
    angle = 2 * math.pi * turns
    return np.stack([np.cos(angle), np.sin(angle)]).astype(np.float32)


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _spectrum(first, values, cols, rows, signs, steps, waves, z, w):  # type: ignore[no-untyped-def]
    """Write the half spectra of rows first..first + 15 to z and w."""  # pragma: no cover
    lanes, size = np.uintp(LANES), waves.shape[1]
    cosines, sines = steps[0].reshape(-1), steps[1].reshape(-1)
    z[:] = 0
    w[:] = 0
    for i in range(values.shape[0]):
        turn = (first * rows[i]) % size
        c = splat(values[i] * waves[0, turn])
        s = splat(values[i] * waves[1, turn])
        at = np.uintp(i) * lanes
        own_c, own_s = load(cosines, at), load(sines, at)
        to = np.uintp(cols[i]) * lanes
        store(z, to, add(load(z, to), sub(mul(c, own_c), mul(s, own_s))))
        imag = add(mul(s, own_c), mul(c, own_s))
        store(w, to, add(load(w, to), mul(splat(signs[i]), imag)))


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _joined(z, w, x, y, size, join):  # type: ignore[no-untyped-def]
    """Write to x and y what the complex transform of half the length makes the rows of."""
    lanes = np.uintp(LANES)  # pragma: no cover - compiled
    for k in range(size):
        at, other = np.uintp(k) * lanes, np.uintp(size - k) * lanes
        ar, ai, br, bi = load(z, at), load(w, at), load(z, other), load(w, other)
        even_r, even_i, odd_r, odd_i = add(ar, br), sub(ai, bi), sub(ar, br), add(ai, bi)
        c, s = splat(join[0, k]), splat(join[1, k])
        store(x, at, sub(even_r, add(mul(s, odd_r), mul(c, odd_i))))
        store(y, at, add(even_i, sub(mul(c, odd_r), mul(s, odd_i))))


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _turned(real, imag, start, chunk, tiles, rows):  # type: ignore[no-untyped-def]
    """Write numbers of sixteen rows, `2 chunk` from `2 start` on, to rows `[16 * 2 chunk]`."""
    evens, odds = tiles[0], tiles[1]  # pragma: no cover - compiled
    for j in range(0, chunk, LANES):
        transpose(real, np.uintp((start + j) * LANES), evens)
        transpose(imag, np.uintp((start + j) * LANES), odds)
        for lane in range(LANES):
            at = np.uintp(lane * LANES)
            a, b = load(evens, at), load(odds, at)
            to = np.uintp(2 * (lane * chunk + j))
            store(rows, to, interleave_low(a, b))
            store(rows, to + np.uintp(LANES), interleave_high(a, b))


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _put(out, golden, at, row, start, count):  # type: ignore[no-untyped-def]
    """Write `count` numbers of `row[start:]` to `out[at:]`, on top of golden's."""
    end, lanes = at + np.uintp(count), np.uintp(LANES)  # pragma: no cover - compiled
    source = np.uintp(start)
    if golden.shape[0] == 0:
        while at < end:
            store(out, at, load(row, source))
            at, source = at + lanes, source + lanes
    while at < end:
        store(out, at, add(load(golden, at), load(row, source)))
        at, source = at + lanes, source + lanes


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _put_mirrored(out, golden, begin, size, q, row, start, count):  # type: ignore[no-untyped-def]
    """Write `count` numbers of `row[start:]`, a row's from q on, where its mirror image has them.

    That is N - q; number 0 stays.
    """
    lanes, source = np.uintp(LANES), np.uintp(start)  # pragma: no cover - compiled
    is_plain = golden.shape[0] == 0
    if q == 0:
        for lane in range(LANES):
            at = begin + np.uintp(size - lane if lane else 0)
            own = row[source + np.uintp(lane)]
            out[at] = own if is_plain else golden[at] + own
        q, source, count = q + LANES, source + lanes, count - LANES
    at = begin + np.uintp(size - q - LANES + 1)
    for _ in range(0, count, LANES):
        value = backwards(load(row, source))
        store(out, at, value if is_plain else add(load(golden, at), value))
        at, source = at - lanes, source + lanes


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _rows_out(real, imag, first, num_rows, size, golden, out, tiles, rows):  # type: ignore[no-untyped-def]
    """Write sixteen rows and their mirror images; real and imag are their even and odd numbers.

    A row at a time: rows lie in the same lines of a cache, if their length is a power of two.
    """
    half = size // 2  # pragma: no cover - compiled
    for start in range(0, half, _CHUNK):
        chunk = min(_CHUNK, half - start)
        _turned(real, imag, start, chunk, tiles, rows)
        for lane in range(min(LANES, num_rows // 2 + 1 - first)):
            p, own = first + lane, 2 * lane * chunk
            at = np.uintp(p * size + 2 * start)
            _put(out, golden, at, rows, own, 2 * chunk)
            if p > 0 and 2 * p != num_rows:  # the others are their own mirror images
                begin = np.uintp((num_rows - p) * size)
                _put_mirrored(out, golden, begin, size, 2 * start, rows, own, 2 * chunk)


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _sums_loop(  # type: ignore[no-untyped-def]
    values,
    cols,
    rows,
    signs,
    steps,
    waves,
    join,
    radices,
    turns,
    roots,
    golden,
    out,
    work,
    tiles,
    held,
):  # pragma: no cover - compiled
    num_rows, half = waves.shape[1], join.shape[1] - 1
    x, y, z, w = work[0], work[1], work[2], work[3]
    for first in range(0, num_rows // 2 + 1, LANES):
        _spectrum(first, values, cols, rows, signs, steps, waves, z, w)
        _joined(z, w, x, y, half, join)
        away = lane_fft(x, y, z, w, half, radices, turns, roots)
        real, imag = (z, w) if away else (x, y)
        _rows_out(real, imag, first, num_rows, 2 * half, golden, out, tiles, held)


def lane_sums(values: Tensor, plan: SumsPlan, golden: Tensor | None, out: Tensor) -> None:
    """Write the sums of float32 values `[n]`, on top of `golden` if given, to `out` `[M, N]`.

    Both matrices are float32 and contiguous on the CPU; they may not overlap.
    """
    half = plan.backward.size
    nothing = np.empty(0, dtype=np.float32)
    _sums_loop(
        values.numpy()[plan.order] * plan.weights,
        plan.cols,
        plan.rows,
        plan.signs,
        plan.steps,
        plan.waves,
        plan.join,
        plan.backward.radices,
        plan.backward.turns,
        plan.backward.roots,
        nothing if golden is None else golden.numpy().reshape(-1),
        out.numpy().reshape(-1),
        np.empty((4, (half + 1) * LANES), dtype=np.float32),
        np.empty((2, LANES * LANES), dtype=np.float32),
        np.empty(2 * _CHUNK * LANES, dtype=np.float32),
    )


def fits_lane_sums(*matrices: Tensor | None) -> bool:
    """Return whether `lane_sums` can read and write these matrices."""
    return all(
        one is None
        or (one.dtype == torch.float32 and one.device.type == "cpu" and one.is_contiguous())
        for one in matrices
    )
