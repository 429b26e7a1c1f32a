"""Wavelet analysis of a batch's rows, and each row through its own sparse core and back.

    z = analyse(x),   core[t, row[k]] += bank[slot[t], k] * z[t, col[k]],   y = synthesise(core)

One line at a time, so that a core never leaves the cache; the levels of a pyramid lie in a line
one after the other (transforms/pyramid.py). Every row takes the same operations in the same
order whichever rows stand beside it. The torch reference is the pyramid's own two functions
around the gathered loop's.
"""

from functools import lru_cache

import numba
import numpy as np
import torch
from torch import Tensor

from adapters_core.contract.method import PackedLayer
from adapters_core.kernels.filter_pyramid import Pyramid
from adapters_core.kernels.gathered import gathered_rows, gathered_rows_reference


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _split(line, size, low, high, z, half, even, odd):  # type: ignore[no-untyped-def]
    """Write the products of a line's first `size` cells with the atoms of one level to z."""
    back = low.shape[0] // 2 - 1  # pragma: no cover - compiled
    l0, l1, h0, h1 = low[0], low[1], high[0], high[1]
    if back == 0:
        for i in range(size // 2):
            a, b = line[2 * i], line[2 * i + 1]
            z[i] = l0 * a + l1 * b
            z[half + i] = h0 * a + h1 * b
        if size % 2:
            z[half - 1] = l0 * line[size - 1]
            z[2 * half - 1] = h0 * line[size - 1]
        return
    even[: half + back] = 0
    odd[: half + back] = 0
    for i in range(size // 2):
        even[back + i] = line[2 * i]
        odd[back + i] = line[2 * i + 1]
    if size % 2:
        even[back + size // 2] = line[size - 1]
    for i in range(half):
        z[i] = l0 * even[i] + l1 * odd[i]
        z[half + i] = h0 * even[i] + h1 * odd[i]
    # One pair of taps after the other over the whole line: a compiler makes vectors of that.
    for j in range(1, back + 1):
        l0, l1, h0, h1 = low[2 * j], low[2 * j + 1], high[2 * j], high[2 * j + 1]
        for i in range(half):
            z[i] += l0 * even[i + j] + l1 * odd[i + j]
            z[half + i] += h0 * even[i + j] + h1 * odd[i + j]


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _join(z, half, low, high, size, line, adds, even, odd):  # type: ignore[no-untyped-def]
    """Write the sum of one level's atoms times z to a line's first `size` cells, or add it."""
    back, pairs = low.shape[0] // 2 - 1, size // 2  # pragma: no cover - compiled
    even[: pairs + 1] = 0
    odd[: pairs + 1] = 0
    if adds:
        for i in range(pairs):
            even[i] = line[2 * i]
            odd[i] = line[2 * i + 1]
        if size % 2:
            even[pairs] = line[size - 1]
    for j in range(back):
        l0, l1, h0, h1 = low[2 * j], low[2 * j + 1], high[2 * j], high[2 * j + 1]
        a, b = z[back - j :], z[half + back - j :]
        for i in range(pairs + size % 2):
            even[i] += l0 * a[i] + h0 * b[i]
            odd[i] += l1 * a[i] + h1 * b[i]
    l0, l1, h0, h1 = low[2 * back], low[2 * back + 1], high[2 * back], high[2 * back + 1]
    for i in range(pairs):
        line[2 * i] = even[i] + (l0 * z[i] + h0 * z[half + i])
        line[2 * i + 1] = odd[i] + (l1 * z[i] + h1 * z[half + i])
    if size % 2:
        line[size - 1] = even[pairs] + (l0 * z[pairs] + h0 * z[half + pairs])


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _analysis_loop(x, sizes, starts, low, high, z):  # type: ignore[no-untyped-def]
    room = 1 + (starts[1:] - starts[:-1]).max()  # pragma: no cover - compiled
    even = np.empty(room, np.float32)  # lines shorter than a filter grow from level to level
    odd = np.empty(room, np.float32)
    for t in range(x.shape[0]):
        line = x[t]
        for level in range(sizes.shape[0]):
            half = (starts[level + 1] - starts[level]) // 2
            _split(line, sizes[level], low, high, z[t, starts[level] :], half, even, odd)
            line = z[t, starts[level] : starts[level + 1]]


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _synthesis_loop(  # type: ignore[no-untyped-def]
    z, buffer, offset, slots, cols, rows, sizes, starts, low, high, y
):  # pragma: no cover - compiled
    room = 1 + (starts[1:] - starts[:-1]).max()
    core = np.empty(starts[-1], np.float32)
    even = np.empty(room, np.float32)
    odd = np.empty(room, np.float32)
    for t in range(z.shape[0]):
        bank = buffer[slots[t], offset:]
        line_z = z[t]
        core[:] = 0
        for k in range(cols.shape[0]):
            core[rows[k]] += bank[k] * line_z[cols[k]]
        for level in range(sizes.shape[0] - 1, -1, -1):
            half = (starts[level + 1] - starts[level]) // 2
            line = core[starts[level - 1] :] if level else y[t]
            part = core[starts[level] :]
            _join(part, half, low, high, sizes[level], line, level > 0, even, odd)


def analysed_rows(x: Tensor, pyramid: Pyramid) -> Tensor:
    """Return every atom's product with the rows of x `[T, size]`: `[T, num_atoms]`."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or not pyramid.bank.low:
        return pyramid.analyse(x)
    tables = _tables(pyramid, x.shape[1])
    z = torch.empty(x.shape[0], pyramid.num_atoms(x.shape[1]))
    _analysis_loop(x.contiguous().numpy(), *tables, z.numpy())
    return z


def wavelet_rows(
    z: Tensor,
    layer: PackedLayer,
    slots: Tensor,
    cols: Tensor,
    rows: Tensor,
    pyramid: Pyramid,
    size: int,
) -> Tensor:
    """Return `[T, size]` in z's dtype: every analysed row through its own slot's sparse core.

    Args:
        z: `[T, C]`, as `analysed_rows` gives them.
        layer: the packed coefficients, one per position, in the order of `cols` and `rows`.
        slots: int64 `[T]`.
        cols: int32 `[n]`, the atom of the columns that each coefficient reads.
        rows: int32 `[n]`, the atom of the rows that it writes.
        pyramid: of the rows.
        size: of the result's rows.
    """
    if not pyramid.bank.low:
        return gathered_rows(z, layer, slots, cols, rows, size)
    if z.device.type != "cpu" or z.dtype != torch.float32:
        return wavelet_rows_reference(z, layer, slots, cols, rows, pyramid, size)
    y = torch.empty(z.shape[0], size)
    _synthesis_loop(
        z.contiguous().numpy(),
        layer.buffer.numpy(),
        layer.offset,
        slots.numpy(),
        cols.numpy().view(np.uint32),
        rows.numpy().view(np.uint32),
        *_tables(pyramid, size),
        y.numpy(),
    )
    return y


def wavelet_rows_reference(
    z: Tensor,
    layer: PackedLayer,
    slots: Tensor,
    cols: Tensor,
    rows: Tensor,
    pyramid: Pyramid,
    size: int,
) -> Tensor:
    """Return what `wavelet_rows` does, in torch operations that run on any device and dtype."""
    core = gathered_rows_reference(z, layer, slots, cols, rows, pyramid.num_atoms(size))
    return pyramid.synthesise(core, size)


@lru_cache(maxsize=256)
def _tables(pyramid: Pyramid, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return sizes and starts of the levels and the filters, as the loops read them."""
    low, high = (np.array(one, np.float32) for one in (pyramid.bank.low, pyramid.bank.high))
    return np.array(pyramid.sizes(size)), np.array(pyramid.starts(size)), low, high
