"""Kernels get an encoder's rows as torch does: several banks, the base and padding in one batch."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from adapters_core.contract.layer import Shape
from adapters_core.gpu_kernels.running import Launch, interpreted, listening
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.linear import AdaptedLinear, Switch
from adapters_core.methods import FourierFT, LoCA
from server.adapters.payload import Factored
from server.encoding.plan import EncodingPlan, Payload
from server_parts import CPU, torch_threads

pytest.importorskip("triton")

SHAPE = Shape(16, 32)
PATH = "layer.q"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


def payloads(order: tuple[int | None, ...]) -> list[Payload]:
    """Return two adapters of FourierFT, 0 and 1, and two of LoCA, in this order; None: the base."""
    found: list[Factored] = []
    for method in (FourierFT(n=20, scale=40.0), LoCA(n=20, scale=4.0)):
        methods = method.of_layers({PATH: SHAPE})
        bank = Bank(Layout.of(methods, {PATH: SHAPE}), BasisCache(CPU))
        for seed in range(2):
            layers = {PATH: method.init(SHAPE, torch.Generator().manual_seed(seed))}
            for name, tensor in layers[PATH].items():
                if tensor.is_floating_point():
                    generator = torch.Generator().manual_seed(10 + seed)
                    layers[PATH] |= {name: torch.randn(tensor.shape, generator=generator)}
            found.append(Factored(bank, bank.add(bank.pack(methods, layers))))
    return [None if number is None else found[number] for number in order]


def answers(given: list[Payload], x: Tensor) -> Tensor:
    torch.manual_seed(3)
    layer = AdaptedLinear(nn.Linear(SHAPE.in_, SHAPE.out), PATH, Switch())
    with torch.inference_mode():
        return EncodingPlan(given, CPU).forward(layer, x)


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize("order", [(0, None, 2, 1, 3), (1, 0), (2,) * 4])
def test_kernels_give_what_torch_does(order: tuple[int | None, ...], each: int) -> None:
    x = torch.randn(len(order) * each, SHAPE.in_, generator=torch.Generator().manual_seed(4))
    by_torch = answers(payloads(order), x)
    launched: list[Launch] = []
    with interpreted():
        given = payloads(order)
    with listening(launched.append):
        by_kernels = answers(given, x)
    assert launched
    assert (by_kernels - by_torch).abs().max() <= 1e-5 * by_torch.abs().max()
    assert (by_torch - answers([None] * len(order), x)).abs().max() > 0.1
