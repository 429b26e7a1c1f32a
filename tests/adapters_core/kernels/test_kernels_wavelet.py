"""The wavelets' compiled loops against their torch references."""

import pytest
import torch

from adapters_core.contract.method import PackedLayer
from adapters_core.kernels import (
    analysed_rows,
    gathered_rows,
    gathered_rows_reference,
    haar_rows,
    haar_rows_reference,
    wavelet,
    wavelet_rows,
    wavelet_rows_reference,
)
from adapters_core.kernels.filter_pyramid import Pyramid
from adapters_core.kernels.haar import Blocks
from adapters_core.kernels.wavelet_filters import FilterBank, wavelet_bank
from tiny_bases import relative

EPS = torch.finfo(torch.float32).eps
SLOTS = 4
each_pyramid = pytest.mark.parametrize(
    "pyramid",
    [Pyramid(wavelet_bank(name), n) for name in ("db1", "db2", "coif2") for n in (1, 2, 5)],
    ids=lambda pyramid: f"{pyramid.bank.taps} taps x {pyramid.num_levels}",
)
each_size = pytest.mark.parametrize("size", [1, 2, 3, 31, 77, 96])


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def layer_of(n: int) -> PackedLayer:
    """Return a layer of n numbers that does not begin where its bank's rows do."""
    return PackedLayer(torch.randn(SLOTS, n + 20, generator=generator()), offset=13, length=n)


def positions(n: int, below: int) -> torch.Tensor:
    return torch.randint(below, (n,), generator=generator()).int()


def slots_of(num_rows: int) -> torch.Tensor:
    return torch.randint(SLOTS, (num_rows,), generator=generator())


@pytest.mark.parametrize("num_rows", [0, 1, 6])
def test_gathered_loop_is_its_reference(num_rows: int) -> None:
    layer, slots = layer_of(40), slots_of(num_rows)
    x = torch.randn(num_rows, 39, generator=generator())
    cols, rows = positions(40, 39), positions(40, 23)
    got = gathered_rows(x, layer, slots, cols, rows, 23)
    true = gathered_rows_reference(x.double(), layer, slots, cols, rows, 23)
    assert got.shape == (num_rows, 23)
    assert torch.allclose(got.double(), true, rtol=0, atol=64 * EPS)


@each_size
@each_pyramid
def test_analysis_loop_is_the_pyramids(pyramid: Pyramid, size: int) -> None:
    x = torch.randn(3, size, generator=generator())
    got = analysed_rows(x, pyramid)
    assert got.shape == (3, pyramid.num_atoms(size))
    assert relative(got, pyramid.analyse(x.double())) < 4 * EPS
    assert relative(analysed_rows(x.double(), pyramid), pyramid.analyse(x.double())) == 0


@each_size
@each_pyramid
def test_synthesis_loop_is_its_reference(pyramid: Pyramid, size: int) -> None:
    layer, slots = layer_of(70), slots_of(5)
    z = torch.randn(5, 39, generator=generator())
    given = layer, slots, positions(70, 39), positions(70, pyramid.num_atoms(size)), pyramid, size
    true = wavelet_rows_reference(z.double(), *given)
    got = wavelet_rows(z, *given)
    assert got.shape == (5, size)
    assert relative(got, true) < 16 * EPS
    assert relative(wavelet_rows_reference(z, *given), true) < 16 * EPS


@pytest.mark.parametrize("size", [1, 2, 3, 31])
@each_pyramid
def test_loops_stay_inside_their_arrays(
    pyramid: Pyramid, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run as Python, where numpy checks what compiled loops do not."""
    x, layer, slots = torch.randn(2, size, generator=generator()), layer_of(30), slots_of(2)
    z = analysed_rows(x, pyramid)
    given = layer, slots, positions(30, z.shape[1]), positions(30, z.shape[1]), pyramid, size
    y = wavelet_rows(z, *given)
    for name in ("_split", "_join", "_analysis_loop", "_synthesis_loop"):
        monkeypatch.setattr(wavelet, name, getattr(wavelet, name).py_func)
    assert relative(analysed_rows(x, pyramid), z) < EPS
    assert relative(wavelet_rows(z, *given), y) < EPS


def test_without_filters_rows_are_gathered_only() -> None:
    layer, slots, pyramid = layer_of(40), slots_of(3), Pyramid(FilterBank())
    x = torch.randn(3, 39, generator=generator())
    assert analysed_rows(x, pyramid) is x
    cols, rows = positions(40, 39), positions(40, 23)
    got = wavelet_rows(x, layer, slots, cols, rows, pyramid, 23)
    assert torch.equal(got, gathered_rows(x, layer, slots, cols, rows, 23))


@pytest.mark.parametrize("num_rows", [0, 1, 6])
def test_haar_loop_is_its_reference(num_rows: int) -> None:
    layer, slots = layer_of(40), slots_of(num_rows)
    x = torch.randn(num_rows, 39, generator=generator())
    numbers = torch.randn(2, 40, 2, generator=generator())
    cells = positions(80, 23).view(40, 2), positions(80, 39).view(40, 2)
    blocks = Blocks(*cells, numbers[0], numbers[1])
    got = haar_rows(x, layer, slots, blocks, 23)
    true = haar_rows_reference(x.double(), layer, slots, blocks, 23)
    assert got.shape == (num_rows, 23)
    assert torch.allclose(got.double(), true, rtol=0, atol=256 * EPS)


def test_rows_that_do_not_lie_together() -> None:
    pyramid, layer, slots = Pyramid(wavelet_bank("db2"), 2), layer_of(30), slots_of(4)
    x = torch.randn(17, 4, generator=generator()).T
    assert torch.equal(analysed_rows(x, pyramid), analysed_rows(x.contiguous(), pyramid))
    cols, rows = positions(30, 17), positions(30, pyramid.num_atoms(9))
    given = layer, slots, cols, rows, pyramid, 9
    assert torch.equal(wavelet_rows(x, *given), wavelet_rows(x.contiguous(), *given))
    ones = torch.ones(30, 2)
    cells = positions(60, 9).view(30, 2), positions(60, 17).view(30, 2)
    blocks = Blocks(*cells, ones, ones)
    one, other = (haar_rows(rows, layer, slots, blocks, 9) for rows in (x, x.contiguous()))
    assert torch.equal(one, other)


def test_half_precision_goes_through_the_references() -> None:
    pyramid, layer, slots = Pyramid(wavelet_bank("db1"), 2), layer_of(30), slots_of(2)
    x = torch.ones(2, 8, dtype=torch.bfloat16)
    z = analysed_rows(x, pyramid)
    cols, rows = positions(30, z.shape[1]), positions(30, pyramid.num_atoms(6))
    got = wavelet_rows(z, layer, slots, cols, rows, pyramid, 6)
    ones = torch.ones(30, 2)
    blocks = Blocks(positions(60, 6).view(30, 2), positions(60, 8).view(30, 2), ones, ones)
    assert haar_rows(x, layer, slots, blocks, 6).dtype == got.dtype == z.dtype == torch.bfloat16
