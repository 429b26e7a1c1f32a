"""Kernels that gather: odd widths, edges that cut atoms, slices with empty cells."""

import pytest
import torch

from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method
from adapters_core.gpu_kernels.sliced import SLICE, one_behind_the_other, sliced
from adapters_core.layers.bank import EMPTY_SLOT
from adapters_core.methods import VeRA, WaveletFT
from filled_bank import FilledBank

pytest.importorskip("triton")

ODD = {"a.q": Shape(301, 77), "a.k": Shape(33, 77)}
METHODS: list[Method] = [
    WaveletFT(n=150),  # more than a slice holds
    WaveletFT(n=220),  # through transforms elsewhere
    WaveletFT(n=30, wavelet="db3", num_levels=3),
    WaveletFT(n=30, wavelet="coif2"),
    VeRA(r=3),
]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_odd_widths(method: Method) -> None:
    filled = FilledBank(method.of_layers(ODD), ODD)
    slots = torch.tensor([filled.slots[2], EMPTY_SLOT, filled.slots[1]])
    x = torch.randn(3, 77, generator=torch.Generator().manual_seed(8))
    for path, shape in ODD.items():
        before = torch.randn(3, shape.out, generator=torch.Generator().manual_seed(9))
        got = filled.update(x, slots, path, before.clone())
        exact = filled.exact(x, slots, path)
        assert (got - before - exact).norm() <= 1e-5 * exact.norm()
        assert torch.equal(got[1], before[1])


def test_slices_hold_a_sparse_matrix() -> None:
    generator = torch.Generator().manual_seed(10)
    dense = torch.randn(300, 40, generator=generator)
    dense *= torch.rand(300, 40, generator=generator) < 0.1
    dense[SLICE : 2 * SLICE] = 0  # a slice without entries
    cells, index = dense.nonzero().T
    one = sliced(cells, index, dense[cells, index], 300)
    both = one_behind_the_other([one, one])
    got = torch.zeros(both.size, 40)
    for number, (start, length) in enumerate(zip(both.starts, both.lengths, strict=True)):
        for entry in range(int(start), int(start) + int(length) * SLICE):
            if both.index[entry] >= 0:
                cell = number * SLICE + (entry - int(start)) % SLICE
                got[cell, both.index[entry]] += both.numbers[entry]
    assert torch.equal(got[:300], dense)
    assert torch.equal(got[3 * SLICE : 3 * SLICE + 300], dense)


def test_atoms_that_touch_too_many_cells_leave_it_to_torch() -> None:
    shapes = {"a.q": Shape(4096, 4096)}
    method = WaveletFT(n=60_000, wavelet="db10")
    filled = FilledBank({"a.q": method}, shapes)
    assert filled.kernels.kernels_of("a.q") is None
