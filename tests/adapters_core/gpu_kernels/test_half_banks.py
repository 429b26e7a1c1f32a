"""Banks in half precision beside a base in half precision: what that costs, and what it saves."""

import pytest
import torch

from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method
from adapters_core.layers.bank import EMPTY_SLOT, Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.methods import CLoRA, FourierFT, LoCA, LoRA, WaveletFT
from filled_bank import FilledBank

pytest.importorskip("triton")

META = torch.device("meta")
QKV = {"a.q": Shape(96, 64), "a.k": Shape(32, 64), "a.v": Shape(32, 64)}
HALVED: list[Method] = [
    FourierFT(n=200, scale=300.0),
    WaveletFT(n=200),
    WaveletFT(n=60, wavelet="db4", num_levels=2),
    LoRA(r=16),
    CLoRA(r=3, num_spaces=2),
]


@pytest.mark.parametrize("method", HALVED, ids=str)
def test_updates_are_off_by_less_than_the_canary_allows(method: Method) -> None:
    filled = FilledBank(method.of_layers(QKV), QKV, torch.bfloat16)
    assert filled.kernels.buffer.dtype == torch.float16
    slots = torch.tensor([filled.slots[2], EMPTY_SLOT, filled.slots[1]])
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(2))
    for path, shape in QKV.items():
        got = filled.update(x, slots, path, torch.zeros(3, shape.out))
        exact = filled.exact(x, slots, path)
        assert 1e-5 <= (got - exact).norm() / exact.norm() <= 5e-4
        assert not got[1].any()


def test_rows_go_to_the_host_and_back() -> None:
    filled = FilledBank(LoRA(r=5).of_layers(QKV), QKV, torch.bfloat16)
    bank = filled.kernels
    row, before = bank.row(filled.slots[1]), bank.buffer[filled.slots[1]].clone()
    true = filled.torch_way.row(filled.slots[1])
    assert row.dtype == torch.float32
    assert row.shape == true.shape
    assert (row - true).norm() <= 5e-4 * true.norm()
    slots = [bank.add(row) for _ in range(9)]  # grows
    assert all(torch.equal(bank.buffer[slot], before) for slot in [filled.slots[1], *slots])
    assert bank.row_bytes == bank.buffer[0].nbytes


@pytest.mark.parametrize("method", [LoCA(n=40), FourierFT(n=40)], ids=str)
def test_positions_and_banks_of_a_full_base_stay_as_they_are(method: Method) -> None:
    dtype = torch.bfloat16 if isinstance(method, LoCA) else torch.float32
    filled = FilledBank(method.of_layers(QKV), QKV, dtype)
    assert filled.kernels.buffer.dtype == torch.float32
    assert filled.kernels.row_bytes == 4 * filled.kernels.layout.width


@pytest.mark.parametrize("method", [FourierFT(n=1000), WaveletFT(n=1000)], ids=str)
def test_a_hundred_thousand_adapters_fit_beside_each_other(method: Method) -> None:
    shapes = {
        f"layers.{layer}.{name}": shape
        for layer in range(32)
        for name, shape in {"q": Shape(4096, 4096), "v": Shape(1024, 4096)}.items()
    }
    bank = Bank(
        Layout.of(method.of_layers(shapes), shapes), BasisCache(META, base_dtype=torch.bfloat16)
    )
    assert 0 < 100_000 * bank.row_bytes <= 13e9
