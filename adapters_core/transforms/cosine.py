"""Orthonormal cosine transforms along the last axis, through real Fourier transforms or a matrix.

    dct:   X[k] = s_k sum_t x[t] cos( pi (2t + 1) k / (2N) ),   s_0 = sqrt(1/N), s_k = sqrt(2/N)
    idct:  x[t] = sum_k s_k X[k] cos( pi (2t + 1) k / (2N) )

DCT-II and its transpose, which is its inverse; scipy's `norm="ortho"`. A row's even entries
forwards and its odd ones backwards have a Fourier transform V with e^(-i pi k / 2N) V[k] =
(X[k] - i X[N - k]) / s (Makhoul 1980, IEEE TASSP 28:1), so one real transform of the same length
is enough, at any length. Narrow rows are multiplied by the matrix instead.

Only unscaled one-dimensional transforms are used (see methods/fourierft.py), and the turning is
done in real numbers, one rounding per operation: a complex product may round differently in a
vector and in a tail, and a row's bits would depend on where it lies. Callers that need such bits
pad their rows to a multiple of four (contract/rows.py).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters_core.kernels.cosine import (
    folded_rows,
    lengthened,
    turned_rows,
    unfolded_rows,
    unturned_rows,
)
from adapters_core.kernels.lane_cosines import CosineLanes, cosine_lanes, has_cosine_lanes

#: Up to this width the matrix is faster, measured on a CPU with 4 to 64 rows.
MATRIX_UP_TO = 128


@dataclass(frozen=True)
class CosineTable:
    """What transforms of one size share.

    Args:
        size: N.
        matrix: `[N, N]`, X = matrix @ x; None where Fourier transforms are used.
        turn: `[4, N // 2 + 1]`, of k = 0..N/2: s_k cos and s_k sin of pi k / (2N), which `dct`
            multiplies by, and the same divided by N s_k^2, for `idct`; None beside a matrix.
        lanes: for a batch's rows on a CPU in float32; None where that way cannot go.
    """

    size: int
    matrix: Tensor | None
    turn: Tensor | None
    lanes: CosineLanes | None = None


def cosine_table(
    size: int, device: torch.device, dtype: torch.dtype, dense: bool | None = None
) -> CosineTable:
    """Return the table of `size` in float32 or float64; `dense` says matrix, by width if None."""
    if size <= MATRIX_UP_TO if dense is None else dense:
        entries = cosines(torch.arange(size), torch.arange(size), size)
        return CosineTable(size, entries.T.to(device, dtype), None)
    frequency = torch.arange(size // 2 + 1)
    angle = math.pi * frequency.double() / (2 * size)  # at most pi / 4: nothing to reduce
    scale = _scales(frequency, size)
    waves = torch.stack([angle.cos(), angle.sin()])
    turn = torch.cat([waves * scale, waves / (size * scale)])
    in_lanes = device.type == "cpu" and dtype == torch.float32 and has_cosine_lanes(size)
    lanes = cosine_lanes(size) if in_lanes else None
    return CosineTable(size, None, turn.to(device, dtype), lanes)


def cosines(positions: Tensor, frequencies: Tensor, size: int) -> Tensor:
    """Return `s_k cos(pi (2t + 1) k / (2N))`, float64 `[positions, frequencies]`, exact phases."""
    turns = ((2 * positions[:, None] + 1) * frequencies) % (4 * size)
    return _scales(frequencies, size) * torch.cos(math.pi * turns.double() / (2 * size))


def dct(x: Tensor, table: CosineTable, num_rows: int | None = None) -> Tensor:
    """Return the DCT-II of x `[T, N]` along its last axis: `[num_rows, N]` in x's dtype.

    Args:
        x: the rows.
        table: of N.
        num_rows: T or more, as rows.py wants them; zeros follow. None stands for T.
    """
    if table.matrix is not None:
        return lengthened(x, num_rows) @ table.matrix.T
    assert table.turn is not None
    spectrum = torch.fft.rfft(folded_rows(x, num_rows))
    return turned_rows(spectrum, table.turn[:2], table.size)


def idct(x: Tensor, table: CosineTable) -> Tensor:
    """Return the inverse of `dct`: the DCT-III of x `[T, N]` along its last axis."""
    if table.matrix is not None:
        return x @ table.matrix
    assert table.turn is not None
    return idct_of_half(unturned_rows(x, table.turn[2:]), table)


def idct_of_half(half: Tensor, table: CosineTable) -> Tensor:
    """Return the rows `[T, N]` whose unturned coefficients are complex `[T, N // 2 + 1]`."""
    return unfolded_rows(torch.fft.irfft(half, n=table.size, norm="forward"))


def _scales(frequencies: Tensor, size: int) -> Tensor:
    """Return s_k in float64, which makes the transform orthonormal."""
    full = torch.full(frequencies.shape, 2.0 / size, dtype=torch.float64, device=frequencies.device)
    return torch.where(frequencies == 0, full / 2, full).sqrt()
