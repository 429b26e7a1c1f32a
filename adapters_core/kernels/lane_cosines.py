"""Cosine transforms of eight rows at once, and LoCA's sparse core between two of them.

    lane_dct:     X[k] = s_k sum_t x[t] cos( pi (2t + 1) k / (2N) )
    lane_update:  u[t] = sum_k s_k C[k] cos( pi (2t + 1) k / (2M) ),   C = the rows' own sparse core

The steps are those of transforms/cosine.py: a row is folded (even numbers forwards, odd ones
backwards), transformed and turned; the way back is the same in reverse. A folded row of N numbers
is a complex one of N / 2, its transform split by evenness (lane_spectra.py). Rows of cosine
coefficients are ordinary rows, not lanes: each row reads and writes locations of its own, and its
numbers stay in the nearest cache.
"""

import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from adapters_core.contract.method import PackedLayer
from adapters_core.kernels.lane_fft import (
    LaneTransform,
    has_lane_transform,
    lane_fft,
    lane_transform,
)
from adapters_core.kernels.lane_spectra import Scratch, find_rows
from adapters_core.kernels.simd8 import (
    LANES,
    add,
    lanes_to_rows,
    load,
    mul,
    rows_to_lanes,
    splat,
    store,
    sub,
)


@dataclass(frozen=True)
class CosineLanes:
    """What rows of one length need.

    Args:
        size: N.
        forward, backward: of N / 2.
        waves: float32 `[2, N / 2 + 1]`, cosine and sine of 2 pi k / N.
        scratch: a thread's memory to work in.
    """

    size: int
    forward: LaneTransform
    backward: LaneTransform
    waves: Any
    scratch: Scratch


def has_cosine_lanes(size: int) -> bool:
    """Return whether rows of this length can be transformed eight at a time."""
    return size % (2 * LANES) == 0 and has_lane_transform(size // 2)


def cosine_lanes(size: int) -> CosineLanes:
    """Return the tables of a length that `has_cosine_lanes`."""
    angle = 2 * math.pi * np.arange(size // 2 + 1) / size
    return CosineLanes(
        size,
        lane_transform(size // 2, backward=False),
        lane_transform(size // 2, backward=True),
        np.stack([np.cos(angle), np.sin(angle)]).astype(np.float32),
        Scratch(),
    )


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _folded_in(rows, starts, size, x, y, tile):  # type: ignore[no-untyped-def]
    """Write eight rows of length 2 `size`, folded: even places of that to x, odd ones to y."""
    lanes = np.uintp(LANES)  # pragma: no cover - compiled
    for t in range(0, 2 * size, LANES):
        rows_to_lanes(rows, starts, np.uintp(t), tile)
        a, b = np.uintp(t // 4) * lanes, np.uintp(size - 1 - t // 4) * lanes
        store(x, a, load(tile, np.uintp(0)))
        store(y, b, load(tile, lanes))
        store(y, a, load(tile, np.uintp(2 * LANES)))
        store(x, b, load(tile, np.uintp(3 * LANES)))
        store(x, a + lanes, load(tile, np.uintp(4 * LANES)))
        store(y, b - lanes, load(tile, np.uintp(5 * LANES)))
        store(y, a + lanes, load(tile, np.uintp(6 * LANES)))
        store(x, b - lanes, load(tile, np.uintp(7 * LANES)))


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _unfolded_out(x, y, size, out, starts, tile):  # type: ignore[no-untyped-def]
    """Write the rows of length 2 `size` that `_folded_in` would have read."""
    lanes = np.uintp(LANES)  # pragma: no cover - compiled
    for t in range(0, 2 * size, LANES):
        a, b = np.uintp(t // 4) * lanes, np.uintp(size - 1 - t // 4) * lanes
        store(tile, np.uintp(0), load(x, a))
        store(tile, lanes, load(y, b))
        store(tile, np.uintp(2 * LANES), load(y, a))
        store(tile, np.uintp(3 * LANES), load(x, b))
        store(tile, np.uintp(4 * LANES), load(x, a + lanes))
        store(tile, np.uintp(5 * LANES), load(y, b - lanes))
        store(tile, np.uintp(6 * LANES), load(y, a + lanes))
        store(tile, np.uintp(7 * LANES), load(x, b - lanes))
        lanes_to_rows(tile, out, starts, np.uintp(t))


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _turn(x, y, size, waves, turn):  # type: ignore[no-untyped-def]
    """Turn a folded row's transform into cosine coefficients, the first half to x, then y."""
    lanes, half = np.uintp(LANES), splat(np.float32(0.5))  # pragma: no cover - compiled
    for k in range(size // 2 + 1):
        at, mirrored = np.uintp(k) * lanes, np.uintp(size - k) * lanes
        other = mirrored if k > 0 else at
        ar, ai, br, bi = load(x, at), load(y, at), load(x, other), load(y, other)
        even_r, even_i = mul(half, add(ar, br)), mul(half, sub(ai, bi))
        odd_r, odd_i = mul(half, add(ai, bi)), mul(half, sub(br, ar))
        c, s = splat(waves[0, k]), splat(waves[1, k])
        turned_r = add(mul(c, odd_r), mul(s, odd_i))
        turned_i = sub(mul(c, odd_i), mul(s, odd_r))
        low_r, low_i = add(even_r, turned_r), add(even_i, turned_i)
        high_r, high_i = sub(even_r, turned_r), sub(turned_i, even_i)
        c, s = splat(turn[0, k]), splat(turn[1, k])
        d, u = splat(turn[0, size - k]), splat(turn[1, size - k])
        store(x, at, add(mul(low_r, c), mul(low_i, s)))
        if k == 0:
            store(y, at, add(mul(high_r, d), mul(high_i, u)))
        else:
            store(y, other, sub(mul(low_r, s), mul(low_i, c)))
            store(x, other, add(mul(high_r, d), mul(high_i, u)))
            store(y, at, sub(mul(high_r, u), mul(high_i, d)))


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _unturn(x, y, size, waves, turn):  # type: ignore[no-untyped-def]
    """Turn cosine coefficients, as `_turn` leaves them, into what the transform back reads."""
    lanes = np.uintp(LANES)  # pragma: no cover - compiled
    for k in range(size // 2 + 1):
        at, other = np.uintp(k) * lanes, np.uintp(size - k) * lanes
        c, s = splat(turn[0, k]), splat(turn[1, k])
        d, u = splat(turn[0, size - k]), splat(turn[1, size - k])
        if k == 0:
            middle = load(y, at)
            first, last = mul(load(x, at), c), add(mul(middle, d), mul(middle, u))
            store(x, at, add(first, last))
            store(y, at, sub(first, last))
        else:
            low, high = load(x, at), load(y, other)
            ar, ai = add(mul(low, c), mul(high, s)), sub(mul(low, s), mul(high, c))
            low, high = load(x, other), load(y, at)
            br, bi = add(mul(low, d), mul(high, u)), sub(mul(low, u), mul(high, d))
            even_r, even_i, odd_r, odd_i = add(ar, br), sub(ai, bi), sub(ar, br), add(ai, bi)
            c, s = splat(waves[0, size - k]), splat(waves[1, size - k])
            below = add(even_i, add(mul(c, odd_r), mul(s, odd_i)))
            store(x, other, add(even_r, sub(mul(s, odd_r), mul(c, odd_i))))
            store(y, other, sub(splat(np.float32(0)), below))
            c, s = splat(waves[0, k]), splat(waves[1, k])
            store(x, at, sub(even_r, add(mul(s, odd_r), mul(c, odd_i))))
            store(y, at, add(even_i, sub(mul(c, odd_r), mul(s, odd_i))))


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _dct_loop(rows, out, size, radices, turns, roots, waves, turn, work):  # type: ignore[no-untyped-def]
    starts, tile = np.empty(LANES, np.uint64), np.empty(LANES * LANES, np.float32)
    x, y, z, w = work[0], work[1], work[2], work[3]  # pragma: no cover - compiled
    num_rows = rows.shape[0]
    for first in range(0, num_rows, LANES):
        find_rows(first, num_rows, 2 * size, starts)
        _folded_in(rows, starts, size, x, y, tile)
        away = lane_fft(x, y, z, w, LANES, size, radices, turns, roots)
        real, imag = (z, w) if away else (x, y)
        _turn(real, imag, size, waves, turn)
        for j in range(0, size, LANES):
            lanes_to_rows(real[j * LANES :], out, starts, np.uintp(j))
        for j in range(0, size, LANES):
            lanes_to_rows(imag[j * LANES :], out, starts, np.uintp(size + j))


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _located(x, packed, n, rows, cols, is_new, core):  # type: ignore[no-untyped-def]
    """Write one row's sparse core; rows and cols are kept, since a prompt's rows share them."""
    if is_new:  # pragma: no cover - compiled
        for k in range(n):
            rows[k] = np.int32(packed[n + k])
            cols[k] = np.int32(packed[2 * n + k])
    core[:] = 0
    for k in range(n):
        core[rows[k]] += packed[k] * x[cols[k]]


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _located_loop(  # type: ignore[no-untyped-def]
    cosines, buffer, offset, slots, n, out, size, radices, turns, roots, waves, turn, work
):  # pragma: no cover - compiled
    starts, tile = np.empty(LANES, np.uint64), np.empty(LANES * LANES, np.float32)
    rows, cols = np.empty(n, np.uint32), np.empty(n, np.uint32)
    x, y, z, w = work[0], work[1], work[2], work[3]
    cores = work[2:].reshape(-1)  # read before z and w are written
    num_rows, length, last = out.shape[0], 2 * size, -1
    for first in range(0, num_rows, LANES):
        count = min(LANES, num_rows - first)
        for lane in range(count):
            slot = slots[first + lane]
            core = cores[lane * length : (lane + 1) * length]
            packed = buffer[slot, offset:]
            _located(cosines[first + lane], packed, n, rows, cols, slot != last, core)
            last = slot
        find_rows(0, count, length, starts)
        for j in range(0, size, LANES):
            rows_to_lanes(cores, starts, np.uintp(j), x[j * LANES :])
        for j in range(0, size, LANES):
            rows_to_lanes(cores, starts, np.uintp(size + j), y[j * LANES :])
        _unturn(x, y, size, waves, turn)
        away = lane_fft(x, y, z, w, LANES, size, radices, turns, roots)
        real, imag = (z, w) if away else (x, y)
        find_rows(first, num_rows, length, starts)
        _unfolded_out(real, imag, size, out, starts, tile)


def lane_dct(x: Tensor, num_rows: int, tables: CosineLanes, turn: Tensor) -> Tensor:
    """Return the cosine coefficients of rows `[num_rows, N]`.

    Args:
        x: float32 `[T, N]`.
        num_rows: T or more; zeros follow.
        tables: of N.
        turn: `CosineTable.turn` of N.
    """
    rows, half = x.contiguous().numpy(), tables.size // 2
    out = np.empty((num_rows, tables.size), dtype=np.float32)
    out[len(rows) :] = 0
    work = tables.scratch.of(4, half * LANES)
    forward = tables.forward.arrays
    _dct_loop(rows, out, half, *forward, tables.waves, turn.numpy()[:2], work)
    return torch.from_numpy(out)


def lane_located(
    cosines: Tensor, layer: PackedLayer, slots: Tensor, tables: CosineLanes, turn: Tensor
) -> Tensor:
    """Return the rows' updates `[T, M]`: their sparse cores, transformed back.

    Args:
        cosines: `[R, N]`, R >= T, rows of cosine coefficients.
        layer: `[slots, 3n]`, values, rows and columns, all of them checked.
        slots: int64 `[T]`.
        tables: of M.
        turn: `CosineTable.turn` of M.
    """
    half, num = tables.size // 2, layer.length // 3
    out = np.empty((slots.shape[0], tables.size), dtype=np.float32)
    given = (cosines.numpy(), layer.buffer.numpy(), layer.offset, slots.numpy(), num, out, half)
    rest = (tables.waves, turn.numpy()[2:], tables.scratch.of(4, half * LANES))
    _located_loop(*given, *tables.backward.arrays, *rest)
    return torch.from_numpy(out)
