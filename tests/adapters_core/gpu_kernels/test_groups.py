"""Kernels in Triton's interpreter against torch's way and the defining sum in float64."""

from collections.abc import Iterator

import pytest
import torch

from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method, Rows
from adapters_core.layers.bank import EMPTY_SLOT
from adapters_core.methods import CLoRA, FourierFT, FRoD, LoCA, LoRA, VeRA, WaveletFT
from filled_bank import FilledBank

pytest.importorskip("triton")

#: Linears that see the same rows, by path.
QKV = {"a.q": Shape(96, 64), "a.k": Shape(32, 64), "a.v": Shape(32, 64)}
WIDE = {"a.q": Shape(1024, 2048), "a.v": Shape(256, 2048)}
LONG = {"a.up": Shape(896, 512), "a.gate": Shape(896, 512)}  # 7 parts of 128
#: Four parts of 128 are read at a time, then three.
LONG_IN = {"a.down": Shape(64, 896)}
METHODS: list[Method] = [
    FourierFT(n=40, scale=300.0),
    LoCA(n=40, scale=20.0),
    LoRA(r=5),
    CLoRA(r=3, num_spaces=2),
    VeRA(r=20),
    FRoD(sparse_rate=0.02),
    WaveletFT(n=40),
    WaveletFT(n=60, wavelet="db4", num_levels=2),
    WaveletFT(n=40, use_idwt=False),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


CASES = [
    pytest.param(method, shapes, id=f"{method.name}-{name}")
    for method in METHODS
    for name, shapes in {"qkv": QKV, "wide": WIDE, "long": LONG, "long_in": LONG_IN}.items()
    if not (method.needs_base and shapes is WIDE)  # its basis takes long
    if shapes is not LONG_IN or method.name in ("fourierft", "loca")
]


@pytest.mark.parametrize(("method", "shapes"), CASES)
def test_every_linear_gets_its_update(method: Method, shapes: dict[str, Shape]) -> None:
    filled = FilledBank(method.of_layers(shapes), shapes)
    generator = torch.Generator().manual_seed(2)
    slots = torch.tensor([filled.slots[2], EMPTY_SLOT, filled.slots[1], filled.slots[2]])
    x = torch.randn(4, next(iter(shapes.values())).in_, generator=generator)
    for path, (out, _) in shapes.items():
        before = torch.randn(4, out, generator=generator)
        got = filled.update(x, slots, path, before.clone()) - before
        torch_way = filled.torch_way.apply(path, x, Rows(slots, 4))
        assert torch_way is not None
        scale = torch_way.norm() / len(torch_way) ** 0.5
        assert (got - torch_way).norm(dim=1).max() <= 1e-5 * scale
        assert not got[1].any()
    if shapes is QKV:
        exact = filled.exact(x, slots, "a.q")
        got = filled.update(x, slots, "a.q", torch.full(exact.shape, torch.nan), adds=False)
        assert (got - exact).norm() <= 1e-5 * exact.norm()
        assert not got[1].any()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_bfloat16_rows_are_read_and_written(method: Method) -> None:
    filled = FilledBank(method.of_layers(QKV), QKV)
    slots = torch.tensor([filled.slots[1]])
    x = torch.randn(1, 64, generator=torch.Generator().manual_seed(3)).bfloat16()
    before = torch.randn(1, 96, generator=torch.Generator().manual_seed(4)).bfloat16()
    got = filled.update(x, slots, "a.q", before.clone())
    exact = before.double() + filled.exact(x, slots, "a.q")
    assert got.dtype == torch.bfloat16
    # The interpreter cuts numbers off where a GPU rounds them: one place of eight bits.
    assert (got.double() - exact).abs().le(2**-7 * exact.abs()).all()
