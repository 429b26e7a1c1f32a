"""Kernels in Triton's interpreter against torch's way and the defining sum in float64."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method, Rows
from adapters_core.gpu_kernels.running import interpreted
from adapters_core.layers.bank import EMPTY_SLOT, Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.methods import FourierFT, LoCA

pytest.importorskip("triton")

CPU = torch.device("cpu")
#: Linears that see the same rows, by path.
QKV = {"a.q": (96, 64), "a.k": (32, 64), "a.v": (32, 64)}
WIDE = {"a.q": (1024, 2048), "a.v": (256, 2048)}
LONG = {"a.up": (896, 512), "a.gate": (896, 512)}  # 7 parts of 128
METHODS = [FourierFT(n=40, scale=300.0), LoCA(n=40, scale=20.0)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Filled:
    """A bank with kernels and one without, with the same two adapters."""

    def __init__(self, method: Method, shapes: dict[str, tuple[int, int]]) -> None:
        self.shapes = {path: Shape(*shape) for path, shape in shapes.items()}
        self.methods = method.of_layers(self.shapes)
        layout = Layout.of(self.methods, self.shapes)
        self.torch_way = Bank(layout, BasisCache(CPU))
        with interpreted():
            self.kernels = Bank(layout, BasisCache(CPU))
        generator = torch.Generator().manual_seed(1)
        self.adapters = [self._adapter(generator) for _ in range(2)]
        self.slots = [EMPTY_SLOT]
        for adapter in self.adapters:
            row = self.torch_way.pack(self.methods, adapter)
            self.slots.append(self.kernels.add(row))
            assert self.torch_way.add(row) == self.slots[-1]

    def _adapter(self, generator: torch.Generator) -> dict[str, dict[str, Tensor]]:
        made = {}
        for path, shape in self.shapes.items():
            fresh = self.methods[path].init(shape, generator)
            made[path] = {
                name: torch.randn(tensor.shape, generator=generator)
                if tensor.is_floating_point()
                else tensor
                for name, tensor in fresh.items()
            }
        return made

    def update(self, x: Tensor, slots: Tensor, path: str, y: Tensor) -> Tensor:
        found = self.kernels.kernels_of(path)
        assert found is not None
        group, number = found
        group.add(group.begin(x, self.kernels.buffer, slots), number, y, self.kernels.buffer, slots)
        return y

    def exact(self, x: Tensor, slots: Tensor, path: str) -> Tensor:
        shape, result = self.shapes[path], []
        cells = torch.cartesian_prod(torch.arange(shape.out), torch.arange(shape.in_))
        for row, slot in zip(x.double(), slots.tolist(), strict=True):
            delta = torch.zeros(shape.out * shape.in_, dtype=torch.float64)
            if slot != EMPTY_SLOT:
                layer = self.adapters[self.slots.index(slot) - 1][path]
                for at in range(0, len(cells), 1 << 16):
                    some = slice(at, at + (1 << 16))
                    delta[some] = self.methods[path].cells(
                        layer, shape, *cells[some].T, self.torch_way._bases[path]
                    )
            result.append(delta.view(*shape) @ row)
        return torch.stack(result)


@pytest.mark.parametrize("shapes", [QKV, WIDE, LONG], ids=["qkv", "wide", "long"])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_linear_gets_its_update(method: Method, shapes: dict[str, tuple[int, int]]) -> None:
    filled = Filled(method, shapes)
    generator = torch.Generator().manual_seed(2)
    slots = torch.tensor([filled.slots[2], EMPTY_SLOT, filled.slots[1], filled.slots[2]])
    x = torch.randn(4, next(iter(shapes.values()))[1], generator=generator)
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
        got = filled.update(x, slots, "a.q", torch.zeros(4, shapes["a.q"][0]))
        assert (got - exact).norm() <= 1e-5 * exact.norm()


def test_bfloat16_rows_are_read_and_written() -> None:
    filled = Filled(METHODS[0], QKV)
    slots = torch.tensor([filled.slots[1]])
    x = torch.randn(1, 64, generator=torch.Generator().manual_seed(3)).bfloat16()
    before = torch.randn(1, 96, generator=torch.Generator().manual_seed(4)).bfloat16()
    got = filled.update(x, slots, "a.q", before.clone())
    exact = before.double() + filled.exact(x, slots, "a.q")
    assert got.dtype == torch.bfloat16
    # The interpreter cuts numbers off where a GPU rounds them: one place of eight bits.
    assert (got.double() - exact).abs().le(2**-7 * exact.abs()).all()
