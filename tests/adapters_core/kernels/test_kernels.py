"""The compiled loops against their torch references."""

import pytest
import torch

from adapters_core.contract.method import PackedLayer, Shape
from adapters_core.kernels import (
    lowrank_rows,
    lowrank_rows_reference,
    mirrored_rows,
    mirrored_rows_reference,
    spectral_plan,
    spectral_rows,
    spectral_rows_reference,
)
from tiny_bases import relative

CPU = torch.device("cpu")
EPS = torch.finfo(torch.float32).eps


def buffer(slots: int, width: int) -> torch.Tensor:
    return torch.randn(slots, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("num_minus", [0, 11, 40])
@pytest.mark.parametrize("num_rows", [0, 1, 6])
def test_spectral_loop_is_its_reference_and_the_sum(num_rows: int, num_minus: int) -> None:
    generator = torch.Generator().manual_seed(1)
    layer = PackedLayer(buffer(4, 60), offset=13, length=40)
    spectrum = torch.randn(num_rows, 39, dtype=torch.complex64, generator=generator)
    slots = torch.randint(4, (num_rows,), generator=generator)
    cols = torch.randint(39, (40,), generator=generator)
    rows = torch.randint(23, (40,), generator=generator)
    plan = spectral_plan(cols, rows, torch.arange(40) >= num_minus, 23, CPU)
    assert sorted(plan.order.tolist()) == list(range(40))
    got = spectral_rows(spectrum, layer, slots, plan)
    reference = spectral_rows_reference(spectrum.to(torch.complex128), layer, slots, plan)
    true = torch.zeros(num_rows, 23, dtype=torch.complex128)
    for t, slot in enumerate(slots.tolist()):
        for position, k in enumerate(plan.order.tolist()):
            x = complex(spectrum[t, cols[k]])
            x = x.conjugate() if k < num_minus else x
            true[t, rows[k]] += float(layer.buffer[slot, 13 + position]) * x
    assert got.shape == (num_rows, 23)
    assert torch.allclose(reference, true, rtol=0, atol=1e-12)
    assert torch.allclose(got.to(torch.complex128), true, rtol=0, atol=64 * EPS)


@pytest.mark.parametrize("num_rows", [1, 6])
@pytest.mark.parametrize("rank", [1, 3, 16])
def test_lowrank_loop_is_its_reference(num_rows: int, rank: int) -> None:
    shape = Shape(45, 77)
    layer = PackedLayer(buffer(4, 20 + rank * 122), offset=20, length=rank * 122)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(num_rows, 77, generator=generator)
    slots = torch.randint(4, (num_rows,), generator=generator)
    true = lowrank_rows_reference(x.double(), layer, slots, shape)
    assert relative(lowrank_rows(x, layer, slots, shape), true) < 8 * EPS
    assert relative(lowrank_rows_reference(x, layer, slots, shape), true) < 8 * EPS


def test_lowrank_takes_rows_that_do_not_lie_together() -> None:
    shape = Shape(5, 6)
    layer = PackedLayer(buffer(1, 11), offset=0, length=11)
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).T  # [4, 6], strided
    slots = torch.zeros(4, dtype=torch.int64)
    assert torch.equal(
        lowrank_rows(x, layer, slots, shape), lowrank_rows(x.contiguous(), layer, slots, shape)
    )


def test_spectral_takes_rows_that_do_not_lie_together() -> None:
    layer = PackedLayer(buffer(1, 3), offset=0, length=3)
    spectrum = torch.randn(4, 5, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    positions = torch.tensor([0, 3, 4])
    plan = spectral_plan(positions, positions, positions > 0, 5, CPU)
    slots = torch.zeros(4, dtype=torch.int64)
    strided = spectrum.T.contiguous().T
    assert torch.equal(
        spectral_rows(strided, layer, slots, plan),
        spectral_rows(spectrum, layer, slots, plan),
    )


def test_half_precision_goes_through_the_reference() -> None:
    layer = PackedLayer(buffer(2, 11), offset=0, length=11)
    x = torch.ones(2, 6, dtype=torch.bfloat16)
    assert lowrank_rows(x, layer, torch.tensor([0, 1]), Shape(5, 6)).dtype == torch.bfloat16


@pytest.mark.parametrize("size", [1, 2, 7, 16, 17, 18, 33, 64, 100])
@pytest.mark.parametrize("num_rows", [1, 5])
def test_mirrored_rows_are_the_reference(num_rows: int, size: int) -> None:
    x = torch.randn(num_rows, size, generator=torch.Generator().manual_seed(1))
    got = mirrored_rows(x)
    assert torch.equal(got, mirrored_rows_reference(x))
    assert all(
        got[i, q] == x[num_rows - 1 - i, -q % size] for i in range(num_rows) for q in range(size)
    )
    strided = torch.cat([x, x], dim=1)[:, :size]
    assert torch.equal(mirrored_rows(strided), got)
