"""Rows of a bank in half precision: float16, divided by a power of two.

    row = [ packed / 2^e | zeros | e ],   the largest of packed / 2^e in 2^14 .. 2^15

A number is off by 2^-11 of itself at most. So the update of a method with coefficients is off by
less than 5e-4, as far as its waves are orthogonal; that of two random factors by about 3e-4. A
number below 2^-28 times the largest of the row keeps fewer bits, and is off by 2^-39 of that
largest. Exponents are whole numbers, and so exact. Rows hold a multiple of sixteen numbers:
kernels read eight at a time.
"""

import torch
from torch import Tensor

#: Numbers of a row are a multiple of it.
_MULTIPLE = 16
#: The exponent that the largest number of a row gets.
_LARGEST = 15
#: Exponents of numbers that float32 holds, but for its smallest.
_LEAST, _MOST = -126, 113


def half_width(width: int) -> int:
    """Return how many numbers stand for `width` packed ones."""
    return width + 1 + -(width + 1) % _MULTIPLE


def halved(packed: Tensor) -> Tensor:
    """Return the row, float16 `[half_width]`, of packed numbers `[width]`, on their device."""
    peak = torch.linalg.vector_norm(packed, ord=torch.inf)
    exponent = (torch.frexp(peak).exponent - _LARGEST).clamp(_LEAST, _MOST)
    row = packed.new_zeros(half_width(len(packed)), dtype=torch.float16)
    row[: len(packed)] = torch.ldexp(packed, -exponent)
    row[-1] = exponent
    return row


def doubled(numbers: Tensor, exponents: Tensor) -> Tensor:
    """Return packed numbers, float32 `[..., n]`, of those of rows and the rows' exponents."""
    return torch.ldexp(numbers.float(), exponents.int()[..., None])
