"""FourierFT against the paper's double sum, and the traps of its transform."""

import math

import pytest
import torch

from adapters_core.contract.method import Shape
from adapters_core.errors import InvalidAdapter
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.canary import _TOLERANCE, worst_error
from adapters_core.methods import FourierFT
from adapters_core.positions.seeded import flat_positions
from tiny_bases import random_layer, relative

CPU = torch.device("cpu")


def slow_delta(c: list[float], positions: list[int], scale: float, shape: Shape) -> torch.Tensor:
    """Return alpha / (M N) sum_l c_l cos(2 pi (p j_l / M + q k_l / N)) in plain Python."""
    rows, cols = shape
    delta = torch.zeros(rows, cols, dtype=torch.float64)
    for p in range(rows):
        for q in range(cols):
            for value, position in zip(c, positions, strict=True):
                j, k = divmod(position, cols)
                phase = 2 * math.pi * (p * j / rows + q * k / cols)
                delta[p, q] += scale / (rows * cols) * value * math.cos(phase)
    return delta


def delta_of(method: FourierFT, layer: dict[str, torch.Tensor], shape: Shape) -> torch.Tensor:
    return method.delta(layer, shape, method.basis(shape, CPU, torch.float32))


@pytest.mark.parametrize("shape", [Shape(4, 6), Shape(6, 4), Shape(5, 7), Shape(4, 1)])
@pytest.mark.parametrize("n", [1, 4])
def test_delta_is_the_papers_sum(shape: Shape, n: int) -> None:
    method = FourierFT(n=n, scale=84.0, seed=777)
    layer = random_layer(method, shape)
    size = shape.out * shape.in_
    positions = torch.randperm(size, generator=torch.Generator().manual_seed(777))[:n].tolist()
    true = slow_delta(layer["fourierft_spectrum"].tolist(), positions, 84.0, shape)
    assert relative(delta_of(method, layer, shape), true) < 1e-6
    cells = torch.arange(size)
    exact = method.cells(layer, shape, cells // shape.in_, cells % shape.in_).view(*shape)
    assert relative(exact, true) < 1e-14


def test_every_position_filled_is_the_whole_transform() -> None:
    """n = M N: the delta is the real part of ifft2 of the dense spectrum."""
    shape = Shape(6, 10)
    method = FourierFT(n=60, scale=7.0)
    layer = random_layer(method, shape)
    dense = torch.zeros(60, dtype=torch.float64)
    dense[flat_positions(777, 60, 60)] = layer["fourierft_spectrum"].double()
    true = 7.0 * torch.fft.ifft2(dense.view(6, 10)).real
    assert relative(delta_of(method, layer, shape), true) < 1e-6


@pytest.mark.parametrize("shape", [Shape(45, 77), Shape(96, 60)])
def test_delta_is_even(shape: Shape) -> None:
    delta = delta_of(FourierFT(n=50), random_layer(FourierFT(n=50), shape), shape)
    mirrored = delta.flip(0, 1).roll((1, 1), (0, 1))  # delta[-p, -q]
    assert relative(mirrored, delta) < 1e-6


def test_rank_exceeds_the_number_of_coefficients() -> None:
    method = FourierFT(n=60)
    delta = delta_of(method, random_layer(method, Shape(96, 144)), Shape(96, 144))
    rank = int(torch.linalg.matrix_rank(delta.double(), rtol=1e-5))
    assert 60 < rank <= 120


def test_2048_is_right_with_two_threads() -> None:
    """The width at which float32 ifft2 normalises twice on some CPUs (pytorch issue 169670)."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        method, shape = FourierFT(n=200, scale=300.0), Shape(2048, 2048)
        assert worst_error(method, shape, BasisCache(CPU)) < 1e-5
    finally:
        torch.set_num_threads(before)


def test_the_canarys_measure_sees_a_transform_that_normalises_twice() -> None:
    """The textbook route, float32 ifft2, at 2048: where this machine has the fault, it is seen."""
    method, shape = FourierFT(n=200, scale=300.0), Shape(2048, 2048)
    layer = random_layer(method, shape)
    dense = torch.zeros(shape.out * shape.in_)
    dense[flat_positions(method.seed, method.n, dense.numel())] = layer["fourierft_spectrum"]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        textbook = method.scale * torch.fft.ifft2(dense.view(*shape)).real
    finally:
        torch.set_num_threads(before)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(2048, (64,), generator=generator)
    cols = torch.randint(2048, (64,), generator=generator)
    true = method.cells(layer, shape, rows, cols)
    error = relative(textbook[rows, cols], true)
    # Right to rounding, or wrong by everything: never a small error that could slip through.
    assert error < 1e-5 or error > 100 * _TOLERANCE
    # The fault itself, made by hand, on any machine.
    twice = method.delta(layer, shape, method.basis(shape, CPU, torch.float32)) / dense.numel()
    assert relative(twice[rows, cols], true) > 100 * _TOLERANCE


def test_positions_are_shared_by_layers_of_one_shape_and_seed() -> None:
    method = FourierFT(n=20)
    assert method.signature(Shape(4, 8)) == FourierFT(n=20, scale=9.0).signature(Shape(4, 8))
    assert method.signature(Shape(4, 8)) != FourierFT(n=20, seed=1).signature(Shape(4, 8))
    assert method.positions_digest(Shape(4, 8)) != method.positions_digest(Shape(8, 8))


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"n": 0}, "n_frequency"),
        ({"n": -5}, "n_frequency"),
        ({"scale": math.nan}, "scaling"),
        ({"scale": math.inf}, "scaling"),
        ({"seed": -1}, "random_loc_seed"),
        ({"seed": 2**32}, "random_loc_seed"),
    ],
)
def test_impossible_hyper_parameters_are_named(options: dict[str, float], param: str) -> None:
    with pytest.raises(InvalidAdapter) as caught:
        FourierFT(**options)
    assert caught.value.param == param


def test_more_coefficients_than_positions_are_refused() -> None:
    with pytest.raises(InvalidAdapter, match="25, but the layer has 4 x 6 positions"):
        FourierFT(n=25).tensors(Shape(4, 6))
