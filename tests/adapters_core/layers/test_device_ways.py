"""What methods do on a device, run on the CPU, against what they do there otherwise."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method, PackedLayer, Rows, Segment
from adapters_core.kernels.spectral import (
    spectral_plan,
    spectral_rows_reference,
    spectral_rows_summed,
    terms_of,
)
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.methods import C3A, FourierFT
from made import CPU, random_coefficients

SHAPE = Shape(24, 32)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.integers(0, 12), min_size=1, max_size=60),
    seed=st.integers(0, 99),
    num_rows=st.integers(1, 6),
)
def test_a_sum_of_gathered_terms_is_the_scatter(rows: list[int], seed: int, num_rows: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    count = len(rows)
    cols = torch.randint(17, (count,), generator=generator)
    plus = torch.randint(2, (count,), generator=generator).bool()
    plan = spectral_plan(cols, torch.tensor(rows), plus, 13, CPU)
    assert plan.terms is None
    plan = replace(plan, terms=terms_of(plan.rows, 13))
    spectrum = torch.randn(num_rows, 17, dtype=torch.complex64, generator=generator)
    layer = PackedLayer(torch.randn(3, count + 4, generator=generator), 2, count)
    slots = torch.randint(3, (num_rows,), generator=generator)
    got = spectral_rows_summed(spectrum, layer, slots, plan)
    true = spectral_rows_reference(spectrum.to(torch.complex128), layer, slots, plan)
    assert (got - true).abs().max() < 1e-4
    for t in range(num_rows):  # a row's bits are its own
        own = spectral_rows_summed(spectrum[t : t + 1], layer, slots[t : t + 1], plan)
        assert torch.equal(own[0], got[t])


def test_plans_for_a_device_carry_terms() -> None:
    plan = spectral_plan(
        torch.tensor([1, 2, 3]),
        torch.tensor([4, 0, 4]),
        torch.ones(3).bool(),
        6,
        torch.device("meta"),
    )
    assert plan.terms is not None
    assert plan.terms.shape == (6, 2)
    assert terms_of(torch.tensor([0, 4, 4]), 6).tolist() == [
        [0, 3],
        [3, 3],
        [3, 3],
        [3, 3],
        [1, 2],
        [3, 3],
    ]


def test_c3as_rows_without_a_loop_are_those_of_the_loop() -> None:
    method, generator = C3A(block_size=8), torch.Generator().manual_seed(1)
    x = torch.randn(9, SHAPE.in_, generator=generator)
    layers = [random_coefficients(method, SHAPE, None, seed) for seed in range(3)]
    buffer = torch.stack([method.pack(layer, SHAPE, torch.float32) for layer in layers])
    layer = PackedLayer(buffer, 0, buffer.shape[1])
    rows = Rows(torch.tensor([2, 0, 1, 1, 1, 1, 0, 0, 0]), 3, (Segment(3, 6, 1), Segment(6, 9, 0)))
    true = method.apply(x, layer, rows, SHAPE, torch.float32)
    spectra = torch.fft.rfft(x.view(9, -1, 8))
    product = spectra.new_zeros(9, SHAPE.out // 8, 5)
    method._multiply(spectra, layer, rows, SHAPE, product)
    got = torch.fft.irfft(product, n=8, norm="forward").reshape(9, -1)
    assert (got - true).abs().max() < 1e-5 * true.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fourierft_merge_of_all_layers_at_once_is_that_in_blocks(dtype: torch.dtype) -> None:
    method, generator = FourierFT(n=50), torch.Generator().manual_seed(2)
    basis = BasisCache(CPU).get(method, SHAPE)
    layers = [random_coefficients(method, SHAPE, basis, seed) for seed in range(3)]
    golden = [torch.randn(SHAPE, generator=generator).to(dtype) for _ in layers]
    once, blocks = ([torch.empty_like(weight) for weight in golden] for _ in range(2))
    before = [weight.clone() for weight in golden]
    Method.merge_many(method, layers, golden, once, SHAPE, basis)
    method.merge_many(layers, golden, blocks, SHAPE, basis)
    for one, other, weight, old in zip(once, blocks, golden, before, strict=True):
        assert (one.float() - other.float()).abs().max() <= 2 * torch.finfo(dtype).eps * 5
        assert not torch.equal(one, weight)
        assert torch.equal(weight, old)
