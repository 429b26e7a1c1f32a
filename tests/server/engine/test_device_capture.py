"""A step that is recorded asks its device for nothing: run with tensors that hold no numbers.

Tensors on `meta` have shapes and no values: reading one fails, and so does a shape that follows
from values. What mixes devices is caught here: a copy from the host would stall the device, and a
recording would repeat it with what stood there when it was made.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import tiny
from adapters_core.base.spec import spec_of, weights_of
from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method, Rows
from adapters_core.contract.method_registry import registered
from adapters_core.contract.rows import PackedLayer
from adapters_core.format.token_rows import TokenRows
from adapters_core.layers.bank import EMPTY_SLOT, Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import inject
from adapters_core.layers.linear import AdaptedEmbedding, Switch
from adapters_core.methods import (
    C3A,
    CLoRA,
    DoRA,
    FourierFT,
    FRoD,
    LoCA,
    LoRA,
    LoRAEmbedding,
    SHiRA,
    TinyLoRA,
    VeRA,
    WaveletFT,
)
from server.adapters.payload import Factored, Merged
from server.engine.attention_device import DeviceCache
from server.engine.static_step import Parts, StaticStep
from server_parts import CPU, PAGE_SIZE, given

META = torch.device("meta")
METHODS: tuple[Method, ...] = (
    FourierFT(n=40),
    C3A(block_size=16),
    CLoRA(r=3, num_spaces=2),
    DoRA(r=3),
    FRoD(sparse_rate=0.02),
    LoCA(n=300),
    LoRA(r=3),
    SHiRA(r=2),
    TinyLoRA(r=5, u=6, tying=0.5),
    VeRA(r=5),
    WaveletFT(n=60),
    WaveletFT(n=300, num_levels=2),
)
IDS = [f"{method.name}-{i}" for i, method in enumerate(METHODS)]


def from_the_host(*args: Any, **options: Any) -> Tensor:
    raise AssertionError("numbers of the host are copied to the device")


class Watched(TorchDispatchMode):
    """Fails where a device is asked for a number, or where the host takes part."""

    def __enter__(self) -> Any:
        self._patch = pytest.MonkeyPatch()
        for name in ("tensor", "as_tensor", "from_numpy"):  # not seen by a dispatch mode
            self._patch.setattr(torch, name, from_the_host)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._patch.undo()
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        for asking in ("_local_scalar_dense", "nonzero", "unique", "masked_select", "bincount"):
            assert asking not in name, f"{name} asks the device"
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
        # A number of Python's own is a tensor without dimensions to torch; a kernel's argument.
        kinds = {t.device.type for t in tensors if t.dim() or t.device.type != "cpu"}
        assert kinds <= {"meta"}, f"{name} reads or writes {kinds}"
        return out


class Model:
    """A tiny base without numbers, ready for steps over static tensors."""

    def __init__(self) -> None:
        self.model = tiny.model()
        self.spec = spec_of(self.model, "tiny")
        self.weights = weights_of(tiny.model(), self.spec)
        self.cache = DeviceCache(8, PAGE_SIZE)
        self.cache.attach(self.model)
        self.injection = inject(self.model)
        self.model.to(META)

    def bank(self, method: Method) -> Bank:
        adapter = given(self.spec, method, 1, ("",), BasisCache(CPU, self.weights))
        layout = Layout.of(adapter.methods, self.spec.targets)
        bank = Bank(layout, BasisCache(META, self.weights), 2, adapter.layers)
        bank.add(bank.pack(adapter.methods, adapter.layers))
        return bank

    def step(self, parts: Parts) -> Callable[[], Tensor]:
        numbers = len(parts.banks), len(parts.merged)
        step = StaticStep(8, 4, *numbers, PAGE_SIZE, META)

        def run() -> Tensor:
            self.cache.on_device = step.layout()
            self.injection.switch.plan = step.plan(parts)
            out: Any = self.injection.model(
                input_ids=step.ids,
                attention_mask=step.ids.new_zeros(1, 1, 1, 1),
                position_ids=step.positions,
                use_cache=False,
                logits_to_keep=0,
            )
            self.injection.switch.plan = None
            logits: Tensor = out.logits[0]
            return logits

        return run


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


@torch.inference_mode()
def check(model: Model, parts: Parts) -> None:
    run = model.step(parts)
    run()  # makes the cache
    with Watched():
        assert run().shape == (8, tiny.VOCABULARY)


def test_every_registered_method_is_here() -> None:
    assert {method.name for method in METHODS} == set(registered())


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_a_methods_rows_ask_the_device_for_nothing(model: Model, method: Method) -> None:
    bank = model.bank(method)
    check(model, Parts((bank,), (bank.buffer,)))


@torch.inference_mode()
@pytest.mark.parametrize(
    "method",
    [LoRAEmbedding(r=3), TokenRows((5, 9), looked_up=True), TokenRows((5, 9), looked_up=False)],
    ids=repr,
)
def test_embeddings_and_token_rows_ask_the_device_for_nothing(method: Method) -> None:
    looked_up = not isinstance(method, TokenRows) or method.looked_up
    shape = Shape(16, 40) if looked_up else Shape(40, 16)
    width = method.packed_length(shape)
    layer = PackedLayer(torch.empty(3, 7 + width, device=META), 7, width)
    x = torch.zeros(8, device=META, dtype=torch.int64)
    given_rows = x if looked_up else torch.empty(8, shape.in_, device=META, dtype=torch.bfloat16)
    with Watched():
        update = method.apply(given_rows, layer, Rows(x, 8), shape, None)
    assert update.shape == (8, shape.out)
    assert update.dtype == torch.float32


class ScaledEmbedding(nn.Embedding):
    """Multiplies its rows by a number that stands on its device, as Gemma's does."""

    def __init__(self) -> None:
        super().__init__(40, 16)
        self.register_buffer("embed_scale", torch.tensor(4.0), persistent=False)


@torch.inference_mode()
def test_a_scaled_embedding_asks_the_device_for_nothing() -> None:
    layer = AdaptedEmbedding(ScaledEmbedding(), "embed", Switch()).to(META)
    with Watched():
        scaled = layer.scaled(torch.empty(8, 16, device=META))
    assert scaled.shape == (8, 16)


def test_neither_do_the_base_and_two_banks_at_once(model: Model) -> None:
    check(model, Parts())
    banks = (model.bank(METHODS[0]), model.bank(METHODS[6]))
    check(model, Parts(banks, tuple(bank.buffer for bank in banks)))


def test_neither_do_merged_rows_beside_others(model: Model) -> None:
    bank = model.bank(METHODS[0])
    weights = {
        path: torch.empty(*linear.shape, device=META)
        for path, linear in list(model.injection.linears.items())[:5]
    }
    merged = (Merged(weights), Factored(bank, 1, weights=dict(list(weights.items())[:1])))
    check(model, Parts((bank,), (bank.buffer,), merged))


def test_what_asks_is_noticed() -> None:
    x = torch.ones(3, device=META)
    for asks in (
        lambda: x + torch.ones(3).to(META),
        lambda: torch.tensor([1, 2, 3], device=META),
        lambda: x[x > 0],
        lambda: x.sum().item(),
    ):
        with Watched(), pytest.raises((AssertionError, RuntimeError)):
            asks()


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_the_empty_slot_changes_nothing_exactly(method: Method) -> None:
    model = tiny.model()
    spec = spec_of(model, "tiny")
    bases = BasisCache(CPU, weights_of(model, spec))
    adapter = given(spec, method, 1, ("",), bases)
    bank = Bank(Layout.of(adapter.methods, spec.targets), bases, 2, adapter.layers)
    slot = bank.add(bank.pack(adapter.methods, adapter.layers))
    assert slot != EMPTY_SLOT
    for target, part in list(bank.layout.parts.items())[:7]:
        x = torch.randn(4, part.shape.in_)
        update = bank.apply(target, x, Rows(torch.tensor([0, slot, 0, 0]), 4))
        assert update is not None
        assert update[1].any()
        assert not update[[0, 2, 3]].any()
