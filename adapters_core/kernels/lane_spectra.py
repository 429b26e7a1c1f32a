"""FourierFT's batch, eight rows at a time: spectra of the rows, sparse core, and back.

    analyse:  X[k] = sum_t x[t] e^(-2 pi i t k / N),   k = 0..N/2
    update:   W[r] = sum of the coefficients times X (spectral.py);   u = the real inverse, unscaled

A real row of N numbers is a complex one of N / 2, its transform split by evenness (Z the complex
transform, O and E those of odd and even entries: Z = E + i O). The torch way is `torch.fft.rfft`,
`spectral_rows` and `torch.fft.irfft`; it is the reference, and the way for sizes that are no
multiple of eight or have a large prime factor.
"""

import math
import threading
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np
import torch
from numba.np.numpy_support import carray
from torch import Tensor

from adapters_core.contract.layer import Shape
from adapters_core.contract.method import PackedLayer, Rows
from adapters_core.kernels.lane_fft import (
    LaneTransform,
    has_lane_transform,
    lane_fft,
    lane_transform,
)
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
from adapters_core.kernels.spectral import SpectralPlan
from adapters_core.kernels.team import (
    cube,
    matrix,
    run_on_team,
    take,
    team_loop,
    team_size,
    vector,
)


class Scratch(threading.local):
    """Memory to work in, one of each size a thread: fresh pages cost more than the transforms."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[int, ...], Any] = {}

    def of(self, *shape: int) -> Any:
        """Return a float32 array; what it held before is still in it."""
        if shape not in self._arrays:
            self._arrays[shape] = np.empty(shape, dtype=np.float32)
        return self._arrays[shape]


@dataclass(frozen=True)
class LaneTables:
    """What rows of one layer shape need.

    Args:
        forward: of N / 2.
        backward: of M / 2.
        split, join: float32 `[2, ...]`, cosine and sine of 2 pi k / N and of 2 pi k / M.
    """

    forward: LaneTransform
    backward: LaneTransform
    split: Any
    join: Any
    scratch: Scratch = field(default_factory=Scratch, repr=False, compare=False)


def has_lanes(shape: Shape) -> bool:
    """Return whether layers of this shape can be served eight rows at a time."""
    return all(size % LANES == 0 and has_lane_transform(size // 2) for size in shape)


def lane_tables(shape: Shape) -> LaneTables:
    """Return the tables of a shape that `has_lanes`."""
    return LaneTables(
        lane_transform(shape.in_ // 2, backward=False),
        lane_transform(shape.out // 2, backward=True),
        _quarter_waves(shape.in_),
        _quarter_waves(shape.out),
    )


def _quarter_waves(size: int) -> Any:
    angle = 2 * math.pi * np.arange(size // 2 + 1) / size
    return np.stack([np.cos(angle), np.sin(angle)]).astype(np.float32)


@numba.njit(cache=True, nogil=True, boundscheck=False)
def find_rows(first, num_rows, length, starts):  # type: ignore[no-untyped-def]
    """Write where the rows from `first` on begin in a matrix `[num_rows, length]`."""
    for lane in range(LANES):  # pragma: no cover - compiled
        starts[lane] = np.uint64(min(first + lane, num_rows - 1) * length)


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _parts_in(rows, starts, size, x, y, tile):  # type: ignore[no-untyped-def]
    """Write even numbers of eight rows of length 2 `size` to x, odd ones to y."""
    at = np.uintp(0)  # pragma: no cover - compiled
    lanes, two = np.uintp(LANES), np.uintp(2 * LANES)
    for t in range(0, 2 * size, LANES):
        rows_to_lanes(rows, starts, np.uintp(t), tile)
        taken = np.uintp(0)
        for _ in range(LANES // 2):
            store(x, at, load(tile, taken))
            store(y, at, load(tile, taken + lanes))
            at, taken = at + lanes, taken + two


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _parts_out(x, y, size, out, starts, tile):  # type: ignore[no-untyped-def]
    """Write the lanes of x to the even numbers of rows of length 2 `size`, those of y to the odd.

    The inverse of `_parts_in`.
    """
    at = np.uintp(0)  # pragma: no cover - compiled
    lanes, two = np.uintp(LANES), np.uintp(2 * LANES)
    for t in range(0, 2 * size, LANES):
        taken = np.uintp(0)
        for _ in range(LANES // 2):
            store(tile, taken, load(x, at))
            store(tile, taken + lanes, load(y, at))
            at, taken = at + lanes, taken + two
        lanes_to_rows(tile, out, starts, np.uintp(t))


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _split(real, imag, size, split):  # type: ignore[no-untyped-def]
    """Turn the transform of a complex row into the half spectrum of the real one, in its place."""
    lanes, half = np.uintp(LANES), splat(np.float32(0.5))  # pragma: no cover - compiled
    for k in range(size // 2 + 1):
        at, mirrored = np.uintp(k) * lanes, np.uintp(size - k) * lanes
        other = mirrored if k > 0 else at
        ar, ai, br, bi = load(real, at), load(imag, at), load(real, other), load(imag, other)
        even_r, even_i = mul(half, add(ar, br)), mul(half, sub(ai, bi))
        odd_r, odd_i = mul(half, add(ai, bi)), mul(half, sub(br, ar))
        c, s = splat(split[0, k]), splat(split[1, k])
        turned_r = add(mul(c, odd_r), mul(s, odd_i))
        turned_i = sub(mul(c, odd_i), mul(s, odd_r))
        store(real, mirrored, sub(even_r, turned_r))
        store(imag, mirrored, sub(turned_i, even_i))
        store(real, at, add(even_r, turned_r))
        store(imag, at, add(even_i, turned_i))


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _analyse_loop(rows, spectra, size, radices, turns, roots, split, work):  # type: ignore[no-untyped-def]
    num_rows, length = rows.shape  # pragma: no cover - compiled
    starts, tile = np.empty(LANES, np.uint64), np.empty(LANES * LANES, np.float32)
    for block in range(spectra.shape[0]):
        find_rows(block * LANES, num_rows, length, starts)
        real, imag = spectra[block, 0], spectra[block, 1]
        x, y, z, w = real, imag, work[0], work[1]
        if radices.shape[0] % 2:  # so that the last pass writes the spectra
            x, y, z, w = z, w, x, y
        _parts_in(rows, starts, size, x, y, tile)
        lane_fft(x, y, z, w, LANES, size, radices, turns, roots)
        _split(real, imag, size, split)


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _bank_in(buffer, starts, num, bank, tile):  # type: ignore[no-untyped-def]
    """Write `num` packed coefficients of eight slots to the lanes of `bank`."""
    lanes, whole = np.uintp(LANES), num - num % LANES  # pragma: no cover - compiled
    flat = buffer.reshape(-1)
    for k in range(0, whole, LANES):
        rows_to_lanes(buffer, starts, np.uintp(k), tile)
        at, taken = np.uintp(k) * lanes, np.uintp(0)
        for _ in range(LANES):
            store(bank, at, load(tile, taken))
            at, taken = at + lanes, taken + lanes
    for k in range(whole, num):  # a layer's last ones may be the buffer's last ones
        for lane in range(LANES):
            bank[np.uintp(k * LANES + lane)] = flat[starts[lane] + np.uint64(k)]


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _core(spectra, bank, reads, writes, stops, out_r, out_i):  # type: ignore[no-untyped-def]
    """Write the sparse core's half spectra of one block to out_r and out_i."""  # pragma: no cover
    lanes, one = np.uintp(LANES), np.uintp(1)
    out_r[:] = 0
    out_i[:] = 0
    in_r, in_i = spectra[0], spectra[1]
    k = np.uintp(0)
    for written in range(writes.shape[0]):
        real, imag = splat(np.float32(0)), splat(np.float32(0))
        middle, end = np.uintp(stops[2 * written]), np.uintp(stops[2 * written + 1])
        while k < end:
            value = load(bank, k * lanes)
            at = np.uintp(reads[k] >> one) * lanes
            real = add(real, mul(value, load(in_r, at)))
            if k < middle:
                imag = sub(imag, mul(value, load(in_i, at)))
            else:
                imag = add(imag, mul(value, load(in_i, at)))
            k += one
        at = np.uintp(writes[written] >> one) * lanes
        store(out_r, at, real)
        store(out_i, at, imag)


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _join(z, w, x, y, size, join):  # type: ignore[no-untyped-def]
    """Write to x and y what the complex transform of half the length makes the real rows of."""
    lanes = np.uintp(LANES)  # pragma: no cover - compiled
    for lane in range(LANES):  # the imaginary parts of both ends say nothing
        w[np.uintp(lane)] = 0
        w[np.uintp(size * LANES + lane)] = 0
    for k in range(size):
        at, other = np.uintp(k) * lanes, np.uintp(size - k) * lanes
        ar, ai, br, bi = load(z, at), load(w, at), load(z, other), load(w, other)
        even_r, even_i, odd_r, odd_i = add(ar, br), sub(ai, bi), sub(ar, br), add(ai, bi)
        c, s = splat(join[0, k]), splat(join[1, k])
        store(x, at, sub(even_r, add(mul(s, odd_r), mul(c, odd_i))))
        store(y, at, add(even_i, sub(mul(c, odd_r), mul(s, odd_i))))


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _update_loop(  # type: ignore[no-untyped-def]
    spectra,
    buffer,
    offset,
    slots,
    reads,
    writes,
    stops,
    size,
    radices,
    turns,
    roots,
    join,
    bank,
    work,
    out,
):  # pragma: no cover - compiled
    starts, tile = np.empty(LANES, np.uint64), np.empty(LANES * LANES, np.float32)
    x, y, z, w = work[0], work[1], work[2], work[3]
    for block in range(spectra.shape[0]):
        first = block * LANES
        for lane in range(LANES):
            slot = slots[min(first + lane, slots.shape[0] - 1)]
            starts[lane] = np.uint64(slot * buffer.shape[1] + offset)
        _bank_in(buffer, starts, reads.shape[0], bank, tile)
        _core(spectra[block], bank, reads, writes, stops, z, w)
        _join(z, w, x, y, size, join)
        away = lane_fft(x, y, z, w, LANES, size, radices, turns, roots)
        real, imag = (z, w) if away else (x, y)
        find_rows(first, out.shape[0], out.shape[1], starts)
        _parts_out(real, imag, size, out, starts, tile)


@team_loop
def _analyse_part(given):  # type: ignore[no-untyped-def]
    at = carray(given, 26)  # pragma: no cover - compiled
    size, rows, spectra = int(at[3]), matrix(at, 4, np.float32), cube(at, 7, np.float32)
    radices, turns = vector(at, 11, np.int64), matrix(at, 13, np.float32)
    roots, split = matrix(at, 16, np.float32), matrix(at, 19, np.float32)
    work = cube(at, 22, np.float32)[take(at, np.uintp(0))]
    block = int(take(at, np.uintp(1)))
    while block < spectra.shape[0]:
        own = rows[block * LANES : min(rows.shape[0], (block + 1) * LANES)]
        _analyse_loop(own, spectra[block : block + 1], size, radices, turns, roots, split, work)
        block = int(take(at, np.uintp(1)))


@team_loop
def _update_part(given):  # type: ignore[no-untyped-def]
    at = carray(given, 41)  # pragma: no cover - compiled
    size, offset = int(at[3]), int(at[4])
    spectra, buffer = cube(at, 5, np.float32), matrix(at, 9, np.float32)
    slots, reads = vector(at, 12, np.int64), vector(at, 14, np.uint32)
    writes, stops = vector(at, 16, np.uint32), vector(at, 18, np.uint32)
    radices, turns = vector(at, 20, np.int64), matrix(at, 22, np.float32)
    roots, join = matrix(at, 25, np.float32), matrix(at, 28, np.float32)
    out, me = matrix(at, 31, np.float32), take(at, np.uintp(0))
    work, bank = cube(at, 34, np.float32)[me], matrix(at, 38, np.float32)[me]
    block = int(take(at, np.uintp(1)))
    while block < spectra.shape[0]:
        first, end = block * LANES, min(out.shape[0], (block + 1) * LANES)
        _update_loop(
            spectra[block : block + 1],
            buffer,
            offset,
            slots[first:end],
            reads,
            writes,
            stops,
            size,
            radices,
            turns,
            roots,
            join,
            bank,
            work,
            out[first:end],
        )
        block = int(take(at, np.uintp(1)))


def lane_analysis(x: Tensor, tables: LaneTables) -> Any:
    """Return the half spectra of rows x float32 `[T, N]`: `[blocks, 2, (N / 2 + 1) * 8]`."""
    rows, transform = x.contiguous().numpy(), tables.forward
    blocks, own = -(-rows.shape[0] // LANES), (2, transform.size * LANES)
    spectra = np.empty((blocks, 2, (transform.size + 1) * LANES), dtype=np.float32)
    given, threads = (*transform.arrays, tables.split), team_size(blocks)
    if threads == 1:
        _analyse_loop(rows, spectra, transform.size, *given, tables.scratch.of(*own))
    else:
        values = (transform.size, rows, spectra, *given, tables.scratch.of(threads, *own))
        run_on_team(_analyse_part, blocks, values)
    return spectra


def lane_update(
    spectra: Any, layer: PackedLayer, rows: Rows, plan: SpectralPlan, tables: LaneTables
) -> Tensor:
    """Return the rows' updates `[T, M]` from what `lane_analysis` gave."""
    transform, slots = tables.backward, rows.slots.numpy()
    size, buffer, scratch = transform.size, layer.buffer.numpy(), tables.scratch
    out = np.empty((slots.shape[0], 2 * size), dtype=np.float32)
    work, bank = (4, (size + 1) * LANES), len(plan.reads) * LANES
    read = (slots, plan.reads, plan.writes, plan.stops)
    given, threads = (*transform.arrays, tables.join), team_size(len(spectra))
    if threads == 1:
        own = (scratch.of(bank), scratch.of(*work), out)
        _update_loop(spectra, buffer, layer.offset, *read, size, *given, *own)
    else:
        several = (out, scratch.of(threads, *work), scratch.of(threads, bank))
        values = (size, layer.offset, spectra, buffer, *read, *given, *several)
        run_on_team(_update_part, len(spectra), values)
    return torch.from_numpy(out)
