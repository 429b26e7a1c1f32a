"""Wavelet filters and their pyramid along a line, against PyWavelets and PEFT's tables."""

import math

import numpy as np
import pytest
import pywt
import torch
from peft.tuners.waveft.wavelet import Wavelet

from adapters_core.kernels.filter_pyramid import Pyramid, deepest
from adapters_core.kernels.wavelet_filters import WAVELETS, FilterBank, wavelet_bank

PYRAMIDS = [
    Pyramid(FilterBank()),
    *(Pyramid(wavelet_bank(name), levels) for name in ("db1", "db3", "sym5") for levels in (1, 3)),
]
each_pyramid = pytest.mark.parametrize(
    "pyramid", PYRAMIDS, ids=lambda p: f"{p.bank.taps}x{p.num_levels}"
)
each_size = pytest.mark.parametrize("size", [1, 2, 7, 45, 96])


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_filters_are_orthonormal_and_pefts(wavelet: str) -> None:
    bank = wavelet_bank(wavelet)
    both = torch.tensor([bank.low, bank.high], dtype=torch.float64)
    padded = torch.nn.functional.pad(both, (0, bank.taps))
    for shift in range(0, bank.taps, 2):
        gram = padded @ padded.roll(shift, 1).T
        true = torch.eye(2).double() if shift == 0 else torch.zeros(2, 2).double()
        assert torch.allclose(gram, true, rtol=0, atol=1e-12)
    assert sum(bank.low) == pytest.approx(math.sqrt(2), abs=1e-12)
    theirs = Wavelet(wavelet)  # whose own tables are good to 1e-11
    assert bank.low == pytest.approx(theirs.rec_lo, abs=1e-11)
    assert bank.high == pytest.approx(theirs.rec_hi, abs=1e-11)


@each_size
@each_pyramid
def test_analysis_is_the_transpose_of_synthesis(pyramid: Pyramid, size: int) -> None:
    synthesis = pyramid.synthesise(torch.eye(pyramid.num_atoms(size)).double(), size)
    assert synthesis.shape == (pyramid.num_atoms(size), size)
    assert torch.allclose(pyramid.analyse(torch.eye(size).double()), synthesis.T)


@each_size
@each_pyramid
def test_every_atom_is_its_levels_filter_at_its_span(pyramid: Pyramid, size: int) -> None:
    synthesis = pyramid.synthesise(torch.eye(pyramid.num_atoms(size)).double(), size)
    atoms = iter(synthesis)
    for level, line in enumerate(pyramid.sizes(size)):
        half = pyramid.bank.num_atoms(line) // 2 if pyramid.bank.low else line
        index = torch.arange(half)
        first, stop = pyramid.span(torch.full_like(index, level), index)
        for filters in pyramid.filters[level][: 2 if pyramid.bank.low else 1]:
            for start, end, atom in zip(first.tolist(), stop.tolist(), atoms, strict=False):
                assert end - start == len(filters)
                uncut = torch.zeros(size + 2 * len(filters), dtype=torch.float64)
                uncut[start + len(filters) :][: len(filters)] = torch.from_numpy(filters)
                assert torch.allclose(uncut[len(filters) :][:size], atom, atol=1e-14)


@pytest.mark.parametrize("size", [1, 2, 31, 45, 96, 180])
@pytest.mark.parametrize("num_levels", [1, 2, 4])
@pytest.mark.parametrize("wavelet", ["db1", "db2", "sym4", "coif1"])
def test_synthesis_is_pywts(wavelet: str, num_levels: int, size: int) -> None:
    """waverec takes the deepest low half and every high one; our other low entries are zero."""
    pyramid = Pyramid(wavelet_bank(wavelet), num_levels)
    generator = np.random.default_rng(0)
    z, parts = np.zeros(pyramid.num_atoms(size)), []
    starts = pyramid.starts(size)
    for begin, end in zip(starts, starts[1:], strict=False):
        half = (end - begin) // 2
        z[begin + half : end] = generator.standard_normal(half)
        parts.append(z[begin + half : end])
    z[begin : begin + half] = generator.standard_normal(half)
    true = pywt.waverec([z[begin : begin + half], *parts[::-1]], wavelet)[:size]
    assert np.allclose(pyramid.synthesise(torch.from_numpy(z), size).numpy(), true, atol=1e-9)


@pytest.mark.parametrize("taps", [2, 4, 6, 18])
def test_the_deepest_level_is_pywts_but_one_always_goes(taps: int) -> None:
    for size in (1, 2, 3, 4, 9, 31, 32, 1023, 1024, 11008):
        assert deepest(size, taps) == max(1, pywt.dwt_max_level(size, taps))
