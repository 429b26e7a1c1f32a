"""An adapter's way to a device is one copy; what arrives is what was sent."""

import pytest
import torch
from torch import Tensor

from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.merge import materialise
from adapters_core.layers.uploads import copied, staged, uploaded
from adapters_core.methods import FourierFT, LoCA, LoRA, VeRA, WaveletFT
from bench.lib.counting import cost_of

CPU, META = torch.device("cpu"), torch.device("meta")
SHAPES = {"a.q": Shape(24, 16), "a.v": Shape(8, 16), "b.q": Shape(24, 16)}
METHODS = [FourierFT(n=9), LoCA(n=9), WaveletFT(n=9), LoRA(r=2)]


class Layer:
    """A base's layer on the device without values."""

    is_looked_up = False

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def golden(self) -> Tensor:
        return torch.empty(*self.shape, dtype=torch.bfloat16, device=META)


def adapter(method: Method) -> tuple[dict[str, Method], dict[str, dict[str, Tensor]]]:
    methods = method.of_layers(SHAPES)
    generator = torch.Generator().manual_seed(0)
    return methods, {t: m.init(SHAPES[t], generator) for t, m in methods.items()}


def test_pieces_of_a_copy_are_the_tensors() -> None:
    sent = [
        torch.arange(7, dtype=torch.uint8),
        torch.randn(3, 5),
        torch.tensor(2.5, dtype=torch.float64),
        torch.randn(4, 6).T.bfloat16(),
        torch.zeros(0),
        torch.tensor([[1, 65535]]).to(torch.uint16),
    ]
    got = copied(sent, CPU)
    for mine, theirs in zip(sent, got, strict=True):
        assert theirs.dtype == mine.dtype
        assert torch.equal(theirs, mine)
    assert len({tensor.untyped_storage().data_ptr() for tensor in got}) == 1


def test_on_a_cpu_nothing_is_copied() -> None:
    layers = {"a": {"x": torch.ones(2)}}
    assert uploaded(layers, CPU) is layers
    row = torch.ones(2)
    assert staged(row, CPU) is row


def test_what_layers_share_is_copied_once_and_stays_one_tensor() -> None:
    shared, own = torch.zeros(1000), torch.zeros(10)
    layers = {"a": {"x": shared, "y": own}, "b": {"x": shared}}
    tally = cost_of(lambda: uploaded(layers, META))
    assert tally.cost.uploads == 1
    assert tally.cost.upload_bytes == 4000 + 48  # begins of pieces are aligned
    assert tally.cost.waits == 0
    there = uploaded(layers, META)
    assert there["a"]["x"] is there["b"]["x"]
    assert there["a"]["y"].shape == (10,)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_merge_is_one_upload_and_no_wait(method: Method) -> None:
    methods, layers = adapter(method)
    linears, bases = {t: Layer(shape) for t, shape in SHAPES.items()}, BasisCache(META)
    cost = cost_of(lambda: materialise(methods, layers, linears, bases)).cost
    assert (cost.uploads, cost.waits) == (1, 0)


@pytest.mark.parametrize("method", [*METHODS, VeRA(r=4)], ids=lambda method: method.name)
def test_a_load_into_a_bank_is_one_upload_and_no_wait(method: Method) -> None:
    methods, layers = adapter(method)
    bank = Bank(Layout.of(methods, SHAPES), BasisCache(META), slots=8, layers=layers)
    cost = cost_of(lambda: bank.add(bank.pack(methods, layers))).cost
    assert (cost.uploads, cost.waits) == (1, 0)
    assert cost.upload_bytes == bank.row_bytes


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_row_is_packed_in_host_memory_wherever_the_bank_is(method: Method) -> None:
    methods, layers = adapter(method)
    for name, tensor in layers["a.q"].items():
        if tensor.is_floating_point():
            layers["a.q"][name] = torch.randn(tensor.shape)
    there, here = (
        Bank(Layout.of(methods, SHAPES), BasisCache(device)).pack(methods, layers)
        for device in (META, CPU)
    )
    assert torch.equal(there, here)
    assert there.any()
