"""Half spectra for a dense sum of cosines: of sparse columns first, then of blocks of full rows.

Both write what `unturned_rows` (kernels/cosine.py) would give, without the dense rows between:
a coefficient enters the one frequency it turns into. Nothing is checked here; callers have checked
their positions. A block's tile of rows is transposed and turned while it is in cache.
"""

import numba
import numpy as np
import torch
from torch import Tensor

from adapters_core.kernels.cosine import _unturn, as_spectra, unturned_rows_reference

#: Rows that are transposed together: one cache line of float32.
_TILE = 16


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _sparse_loop(values, lines, positions, size, turn, out):  # type: ignore[no-untyped-def]
    cos, sin = turn[0], turn[1]  # pragma: no cover - compiled
    for i in range(values.shape[0]):
        position, value, parts = positions[i], values[i], out[lines[i]]
        if 2 * position <= size:
            parts[2 * position] += value * cos[position]
            parts[2 * position + 1] += value * sin[position]
        if position > 0 and 2 * position >= size:
            k = size - position
            parts[2 * k] += value * sin[k]
            parts[2 * k + 1] -= value * cos[k]


def sparse_spectra(
    values: Tensor, lines: Tensor, positions: Tensor, num_lines: int, turn: Tensor, size: int
) -> Tensor:
    """Return the half spectra, complex64 `[num_lines, size // 2 + 1]`, of sparse rows.

    Args:
        values: float32 `[n]`, on a CPU; those at one position add.
        lines: int64 `[n]`, the row that each stands in.
        positions: int64 `[n]`, its position in the row.
        num_lines: how many rows there are.
        turn: `[2, size // 2 + 1]`, for the way back.
        size: of a row.
    """
    out = torch.zeros(num_lines, 2 * turn.shape[1])
    arrays = (values.numpy(), lines.numpy(), positions.numpy())
    _sparse_loop(*arrays, size, turn.numpy(), out.numpy())
    return as_spectra(out)


def sparse_spectra_reference(
    values: Tensor, lines: Tensor, positions: Tensor, num_lines: int, turn: Tensor, size: int
) -> Tensor:
    """Return what `sparse_spectra` does, in torch operations."""
    rows = values.new_zeros(num_lines * size).index_add_(0, lines * size + positions, values)
    return unturned_rows_reference(rows.view(num_lines, size), turn)


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _block_loop(waves, first, columns, size, turn, out):  # type: ignore[no-untyped-def]
    # Rows one line longer than the layer's: at powers of two they would share their cache sets.
    tile = np.zeros((_TILE, size + _TILE), np.float32)  # pragma: no cover - compiled
    num_rows, one = out.shape[0], np.uintp(1)
    for start in range(0, num_rows, _TILE):
        count = np.uintp(min(_TILE, num_rows - start))
        row = np.uintp(first + start)
        for c in range(columns.shape[0]):
            source, column = waves[c], np.uintp(columns[c])
            r = np.uintp(0)
            while r < count:
                tile[r, column] = source[row + r]
                r += one
        for i in range(min(_TILE, num_rows - start)):
            _unturn(tile[i, :size], turn[0], turn[1], out[start + i])


def block_spectra(
    waves: Tensor, first: int, columns: Tensor, turn: Tensor, size: int, out: Tensor
) -> Tensor:
    """Return the half spectra `[B, size // 2 + 1]` of rows whose columns are waves; overwrites out.

    Args:
        waves: float32 `[C, M]`, on a CPU: column `columns[c]` of all rows.
        first: the rows are `first..first + B`.
        columns: uint32 `[C]`, all different.
        turn: `[2, size // 2 + 1]`, for the way back.
        size: of a row.
        out: float32 `[B, 2 (size // 2 + 1)]`, which the result is a view of.
    """
    _block_loop(waves.numpy(), first, columns.numpy(), size, turn.numpy(), out.numpy())
    return as_spectra(out)


def block_spectra_reference(
    waves: Tensor, first: int, columns: Tensor, turn: Tensor, size: int, num_rows: int
) -> Tensor:
    """Return what `block_spectra` does for `num_rows` rows, in torch operations."""
    rows = waves.new_zeros(num_rows, size)
    rows[:, columns.long()] = waves[:, first : first + num_rows].T
    return unturned_rows_reference(rows, turn)
