"""Spectra of updates for pictures, against numpy's in float64."""

import numpy as np
import pytest
import torch

from adapters_core.interchange.spectra import fourier_magnitudes, half_fourier_magnitudes

SHAPES = [(8, 12), (7, 5), (2048, 2048)]


@pytest.mark.parametrize("shape", SHAPES)
def test_magnitudes_are_those_of_the_two_dimensional_transform(shape: tuple[int, int]) -> None:
    delta = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    whole = np.abs(np.fft.fft2(delta.double().numpy()))
    # The norm of a row of the transform is sqrt(M N); rounding grows with the logarithm of M N.
    bound = float(np.finfo(np.float32).eps) * 4 * np.log2(delta.numel()) * np.sqrt(delta.numel())
    centred = np.fft.fftshift(whole)
    assert np.abs(fourier_magnitudes(delta).numpy() - centred).max() <= bound
    half = np.fft.fftshift(whole[:, : shape[1] // 2 + 1], axes=0)
    assert np.abs(half_fourier_magnitudes(delta).numpy() - half).max() <= bound
