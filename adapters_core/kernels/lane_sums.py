"""Dense sums of a few real Fourier coefficients, sixteen rows at a time, on top of a weight.

    out[p, q] = golden[p, q] + 2 sum_l v_l cos( 2 pi (p j_l / M + q k_l / N) )

Row p's half spectrum has `v_l e^(2 pi i p j_l / M)` at column k_l (conjugated, at N - k_l, beyond
the middle): sixteen neighbouring rows turn from the first one's by the same sixteen steps, so no
transform is needed along the columns. The rows' own is lane_fft.py's, and row M - p is row p
mirrored, so that half of the rows are written twice and computed once. Nothing of the matrix' size
but the matrix, and parts of some rows, one thread each: beside a running batch they take turns.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numba
import numpy as np
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
    stream,
    streamed,
    sub,
    transpose,
)

#: A coefficient's steps take 128 bytes; with more of them the transforms of columns are cheaper.
_MOST_COEFFICIENTS = 1 << 14
#: Numbers that one part of a merge writes: a quarter of a millisecond.
_PART_NUMBERS = 1 << 18


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
def _turned(real, imag, half, tiles, rows):  # type: ignore[no-untyped-def]
    """Write sixteen rows' even and odd numbers to `rows`, and behind each row its first number."""
    evens, odds = tiles[0], tiles[1]  # pragma: no cover - compiled
    length, lanes = 2 * half + LANES, np.uintp(LANES)
    for j in range(0, half, LANES):
        transpose(real, np.uintp(j * LANES), evens)
        transpose(imag, np.uintp(j * LANES), odds)
        for lane in range(LANES):
            at, to = np.uintp(lane * LANES), np.uintp(lane * length + 2 * j)
            a, b = load(evens, at), load(odds, at)
            store(rows, to, interleave_low(a, b))
            store(rows, to + lanes, interleave_high(a, b))
    for lane in range(LANES):
        rows[lane * length + 2 * half] = rows[lane * length]


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _put(out, golden, begin, size, rows, source):  # type: ignore[no-untyped-def]
    """Write the row at `rows[source:]` to `out[begin:]`, on top of golden's."""
    lanes, end = np.uintp(LANES), begin + size  # pragma: no cover - compiled
    at = begin
    if golden.shape[0] == 0:
        while at < end:
            stream(out, at, load(rows, source))
            at, source = at + lanes, source + lanes
    while at < end:
        stream(out, at, add(load(golden, at), load(rows, source)))
        at, source = at + lanes, source + lanes


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _put_mirrored(out, golden, begin, size, rows, source):  # type: ignore[no-untyped-def]
    """Write the row at `rows[source:]` likewise, number q where N - q stands, and 0 at 0."""
    lanes, end = np.uintp(LANES), begin + size  # pragma: no cover - compiled
    at, source = begin, source + size - lanes + np.uintp(1)
    if golden.shape[0] == 0:
        while at < end:
            stream(out, at, backwards(load(rows, source)))
            at, source = at + lanes, source - lanes
    while at < end:
        stream(out, at, add(load(golden, at), backwards(load(rows, source))))
        at, source = at + lanes, source - lanes


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _rows_out(real, imag, first, num_rows, size, golden, out, tiles, rows):  # type: ignore[no-untyped-def]
    """Write sixteen rows and their mirror images; real and imag are their even and odd numbers.

    A whole row at a time: rows lie in the same lines of a cache, if their length is a power of
    two, and a processor fetches ahead what is read in one piece.
    """
    _turned(real, imag, size // 2, tiles, rows)  # pragma: no cover - compiled
    length = np.uintp(size)
    for lane in range(min(LANES, num_rows // 2 + 1 - first)):
        p, source = first + lane, np.uintp(lane * (size + LANES))
        _put(out, golden, np.uintp(p * size), length, rows, source)
        if p > 0 and 2 * p != num_rows:  # the others are their own mirror images
            begin = np.uintp((num_rows - p) * size)
            _put_mirrored(out, golden, begin, length, rows, source)


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _sums_loop(  # type: ignore[no-untyped-def]
    first_row,
    last_row,
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
    for first in range(first_row, last_row, LANES):
        _spectrum(first, values, cols, rows, signs, steps, waves, z, w)
        _joined(z, w, x, y, half, join)
        away = lane_fft(x, y, z, w, LANES, half, radices, turns, roots)
        real, imag = (z, w) if away else (x, y)
        _rows_out(real, imag, first, num_rows, 2 * half, golden, out, tiles, held)
    streamed()


def lane_sums(values: Tensor, plan: SumsPlan, golden: Tensor | None, out: Tensor) -> None:
    """Write the sums of float32 values `[n]`, on top of `golden` if given, to `out` `[M, N]`.

    The matrices are such as `can_stream` wants them, and may not overlap.
    """
    for part in sums_parts(values, plan, golden, out):
        part()


def sums_parts(
    values: Tensor, plan: SumsPlan, golden: Tensor | None, out: Tensor
) -> list[Callable[[], None]]:
    """Return the parts of `lane_sums`: each writes rows of its own, on whichever thread."""
    backward, num_rows = plan.backward, plan.shape.out // 2 + 1
    nothing = np.empty(0, dtype=np.float32)
    arrays = (
        values.numpy()[plan.order] * plan.weights,
        *(plan.cols, plan.rows, plan.signs, plan.steps, plan.waves, plan.join),
        *(backward.radices, backward.turns, backward.roots),
        nothing if golden is None else golden.numpy().reshape(-1),
        out.numpy().reshape(-1),
    )
    at_once = max(1, _PART_NUMBERS // (2 * LANES * plan.shape.in_)) * LANES
    return [
        partial(_run_part, first, min(first + at_once, num_rows), arrays, backward.size)
        for first in range(0, num_rows, at_once)
    ]


def _run_part(first: int, last: int, arrays: tuple[Any, ...], half: int) -> None:
    """Make the rows first..last - 1 and their mirror images."""
    work = np.empty((4, (half + 1) * LANES), dtype=np.float32)
    tiles = np.empty((2, LANES * LANES), dtype=np.float32)
    held = np.empty((2 * half + LANES) * LANES, dtype=np.float32)
    _sums_loop(first, last, *arrays, work, tiles, held)
