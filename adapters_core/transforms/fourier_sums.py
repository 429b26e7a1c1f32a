"""Dense sums of a few real Fourier coefficients: what FourierFT's delta is made of.

    sums[p, q] = 2 sum_l v_l cos( 2 pi (p rows[l] / M + q cols[l] / N) )

Coefficients are real, so the spectrum may be made Hermitian and halved (each coefficient stands at
(j, k) and at (-j, -k), hence the 2); only columns that hold a coefficient take part in the first
transform, which is one of real numbers; sums[-p, -q] = sums[p, q] leaves half of the rows to the
second. Only one-dimensional, unscaled transforms are used: a scaled two-dimensional one is wrong
on some CPUs (layers/canary.py).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from adapters_core.contract.layer import Shape
from adapters_core.contract.rows import padding_of, row_multiple
from adapters_core.kernels import mirrored_rows

#: Numbers of a weight that are made at a time: half a megabyte of spectrum, in cache.
_BLOCK_NUMBERS = 1 << 18


@dataclass(frozen=True)
class HalfSpectrum:
    """Where coefficients stand in the half of the spectrum that is transformed.

    Args:
        shape: M x N.
        columns: int64 `[C]`, the columns 0..N/2 that hold a coefficient.
        source: int64 `[2n or fewer]`, which coefficient goes to `target`.
        target: int64, its flat cell in `[C, M]`, rows counted backwards: a forward transform
            then does what the inverse one would.
    """

    shape: Shape
    columns: Tensor
    source: Tensor
    target: Tensor


def half_spectrum(flat: Tensor, shape: Shape, device: torch.device) -> HalfSpectrum:
    """Return where the coefficients at the row-major positions `flat` `[n]` stand."""
    rows, cols = flat // shape.in_, flat % shape.in_
    both_rows = torch.cat([rows, -rows % shape.out])
    both_cols = torch.cat([cols, -cols % shape.in_])
    source = torch.arange(flat.numel()).repeat(2)
    kept = both_cols <= shape.in_ // 2
    columns, inverse = torch.unique(both_cols[kept], return_inverse=True)
    target = inverse * shape.out + -both_rows[kept] % shape.out
    return HalfSpectrum(shape, columns.to(device), source[kept].to(device), target.to(device))


def dense_sums(values: Tensor, half: HalfSpectrum) -> Tensor:
    """Return `[L, M, N]` for values `[L, n]`, in their dtype; differentiable."""
    shape = half.shape
    columns = _columns(values, half)
    spectrum = columns.new_zeros(len(values), shape.out // 2 + 1, shape.in_ // 2 + 1)
    spectrum = spectrum.index_copy(2, half.columns, columns.transpose(1, 2))
    top = torch.fft.irfft(spectrum, n=shape.in_, norm="forward")  # rows 0..M/2
    mirrored = top[:, 1 : shape.out - top.shape[1] + 1].flip(1, 2).roll(1, 2)
    return torch.cat([top, mirrored], dim=1)


def write_sums(values: Tensor, half: HalfSpectrum, golden: Tensor | None, out: Tensor) -> None:
    """Write the sums of values `[n]`, on top of `golden` if given, to `out` `[M, N]`.

    A block of rows and its mirror image at a time: blocks stay in cache, where the whole would be
    fresh pages from the system, which cost more than the transforms.
    """
    shape = half.shape
    columns = _columns(values[None], half)[0]  # [C, M // 2 + 1]
    multiple = row_multiple()
    at_once = max(32, multiple, _BLOCK_NUMBERS // shape.in_ // multiple * multiple)
    spectrum = columns.new_zeros(at_once, shape.in_ // 2 + 1)
    for first in range(0, columns.shape[1], at_once):
        block = columns[:, first : first + at_once].T
        # The columns that hold no coefficient stay zero from block to block.
        spectrum[: len(block)].index_copy_(1, half.columns, block)
        padded = spectrum[: len(block) + padding_of(len(block))]
        top = torch.fft.irfft(padded, n=shape.in_, norm="forward")[: len(block)].float()
        last = first + len(top)
        _write(top, golden, out, slice(first, last))
        # Row p is row M - p mirrored; row 0 and, for an even M, row M / 2 are their own.
        start, stop = max(first, 1), min(last, (shape.out + 1) // 2)
        if start < stop:
            below = slice(shape.out - stop + 1, shape.out - start + 1)
            _write(mirrored_rows(top[start - first : stop - first]), golden, out, below)


def _columns(values: Tensor, half: HalfSpectrum) -> Tensor:
    """Return `[L, C, M // 2 + 1]`: the half spectrum's columns, transformed along the rows."""
    rows, count = half.shape.out, half.columns.numel()
    cells = values.new_zeros(len(values), (count + padding_of(count)) * rows)
    cells = cells.index_add(1, half.target, values[:, half.source])
    return torch.fft.rfft(cells.view(len(values), -1, rows))[:, :count]


def _write(delta: Tensor, golden: Tensor | None, out: Tensor, rows: slice) -> None:
    """Write the sum, taken in float32, to rows of out in its own dtype."""
    if golden is None:
        out[rows] = delta
    elif out.dtype == torch.float32:
        torch.add(golden[rows], delta, out=out[rows])
    else:
        out[rows] = (golden[rows] + delta).to(out.dtype)
