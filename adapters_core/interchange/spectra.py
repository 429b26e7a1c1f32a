"""An update's two-dimensional spectrum, and large matrices made small enough to look at."""

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters_core.transforms.cosine import cosine_table, dct


def cosine_magnitudes(delta: Tensor) -> Tensor:
    """Return the magnitudes of the orthonormal two-dimensional DCT-II, `[out, in]`."""
    rows, cols = (cosine_table(size, torch.device("cpu"), delta.dtype) for size in delta.shape)
    return dct(dct(delta.T, rows).T, cols).abs()


def fourier_magnitudes(delta: Tensor) -> Tensor:
    """Return the magnitudes of the Fourier transform, `[out, in]`, frequency zero in the middle."""
    return torch.fft.fftshift(torch.fft.fft(torch.fft.fft(delta), dim=0).abs())


def half_fourier_magnitudes(delta: Tensor) -> Tensor:
    """Return the half of them that tells all, `[out, in // 2 + 1]`.

    Rows are frequencies along out, zero in the middle; columns those along in, from zero on. The
    other half is this one turned round, since the update is real. One axis after the other, as
    two-dimensional transforms of some builds are wrong (adapters_core/layers/canary.py).
    """
    return torch.fft.fftshift(torch.fft.fft(torch.fft.rfft(delta), dim=0).abs(), dim=0)


def pooled(matrix: Tensor, most: int = 512) -> Tensor:
    """Return at most `most` x `most` cells: of each square the entry with the largest magnitude."""
    height, width = (-(-size // most) for size in matrix.shape)
    if height == width == 1:
        return matrix
    grid = matrix.abs()[None, None]
    _, where = F.max_pool2d(grid, (height, width), ceil_mode=True, return_indices=True)
    return matrix.flatten()[where[0, 0]]
