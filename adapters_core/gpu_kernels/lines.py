"""How a kernel transforms a line of N numbers: R interleaved parts of A * B numbers each.

With N = R L and L = A B, position r + R (a B + b) and frequency c + A d (mod L):

    w_N = e^(-2 pi i / N)
    Y_r[c + A d] = sum_b F_B[b, d] w_L^(b c) sum_a F_A[c, a] x[r + R (a B + b)]
    X[k] = sum_r w_N^(r k) Y_r[k mod L]

So a part is two small matrix products, and only the frequencies in use are put together from the
parts. Cooley and Tukey 1965, Mathematics of Computation 19:297, twice.

A cosine transform is that of the folded line (transforms/cosine.py), turned by a quarter of a
step: X[k] = s_k Re( w_4N^k sum_r w_4N^(4 r k) Y_r[k mod L] ).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

#: The longest part: two products of 32 x 32.
_LONGEST_PART = 1024
#: More parts are not worth their sums.
_MOST_PARTS = 64
#: Products of smaller matrices are no work for tensor cores.
_LEAST_SIDE = 16


@dataclass(frozen=True)
class Line:
    """What kernels read of lines of one size.

    Args:
        size: N.
        parts, rows, cols: R, A and B.
        is_cosine: whether it is transformed by cosines.
        tables: float32, F_A `[2, A, A]`, F_B `[2, B, B]` and w_L^(b c) `[2, A, B]` one behind the
            other, each real parts first.
        roots: float32 `[N, 2]`, cosine and sine of 2 pi j / N; `[4 N, 2]` of 4 N for cosines.
    """

    size: int
    parts: int
    rows: int
    cols: int
    is_cosine: bool
    tables: Tensor
    roots: Tensor

    @property
    def part_size(self) -> int:
        """Return L."""
        return self.rows * self.cols

    @property
    def by_dots(self) -> bool:
        """Return whether tensor cores take the products."""
        return min(self.rows, self.cols) >= _LEAST_SIDE


def has_line(size: int) -> bool:
    """Return whether kernels transform lines of a size."""
    return size >= 4 and size // _part_size(size, _LONGEST_PART) <= _MOST_PARTS


@lru_cache(maxsize=64)
def line(
    size: int, is_cosine: bool, device: torch.device, longest_part: int = _LONGEST_PART
) -> Line:
    """Return the tables of a size for which `has_line`; the same ones for equal arguments."""
    part = _part_size(size, longest_part)
    halvings = part.bit_length() - 1
    # What merges spills with 64 x 32 numbers where it does not with 32 x 64.
    rows = 1 << (halvings // 2 if part > _LONGEST_PART else -(-halvings // 2))
    cols = part // rows
    tables = torch.cat([_dft(rows, rows, rows), _dft(cols, cols, cols), _dft(rows, cols, part)])
    roots = roots_of(4 * size if is_cosine else size, device)
    return Line(size, size // part, rows, cols, is_cosine, tables.to(device), roots)


@lru_cache(maxsize=64)
def roots_of(period: int, device: torch.device) -> Tensor:
    """Return cosine and sine of 2 pi j / period, float32 `[period, 2]`."""
    angle = 2 * math.pi * torch.arange(period).double() / period
    return torch.stack([angle.cos(), angle.sin()], dim=1).float().to(device)


def _part_size(size: int, longest_part: int) -> int:
    """Return the largest power of two up to the longest part that divides a size."""
    return min(size & -size, longest_part)


def _dft(rows: int, cols: int, period: int) -> Tensor:
    """Return e^(-2 pi i a b / period), real parts then imaginary ones, flat."""
    turns = (torch.arange(rows)[:, None] * torch.arange(cols)) % period
    angle = -2 * math.pi * turns.double() / period
    return torch.stack([angle.cos(), angle.sin()]).float().flatten()
