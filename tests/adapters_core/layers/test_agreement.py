"""Every way of serving an adapter agrees with its delta: any method, dtype, mixture and order.

`tests/adapters_core/methods/test_method_contract.py` holds each fast way of each method against
`delta`; here they meet: rows of several methods, merged and factored, and rows of the bare base in
one forward pass through an injected model.
"""

import copy
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from adapters_core.base.spec import spec_of, weights_of
from adapters_core.contract.method import Method, Rows, Segment
from adapters_core.contract.method_registry import registered
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import inject
from adapters_core.layers.merge import materialise
from adapters_core.layers.serving_plan import FactoredGroup, MergedGroup, ServingPlan
from adapters_core.methods import LoRA
from made import CPU, random_adapter
from tiny_bases import relative

_PER_METHOD = 2
_OWN_SIZES = {
    "c3a": {"block_size": 4},
    "fourierft": {"n": 50},
    "loca": {"n": 50},
    "lora": {"r": 3},
    "shira": {"r": 1},
    "waveletft": {"n": 50, "wavelet": "db2"},
}


class Attention(nn.Module):
    """Three linears that see the same rows, as q, k and v do, and one that sees theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(44, 60), nn.Linear(44, 20, bias=False)
        self.v_proj, self.o_proj = nn.Linear(44, 60, bias=False), nn.Linear(60, 44)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.q_proj(x) * self.v_proj(x) + self.k_proj(x).repeat(1, 3)
        out: Tensor = self.o_proj(mixed)
        return out


class Model(nn.Module):
    """Two of them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleDict({"self_attn": Attention()}) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer["self_attn"](x)
        return x


@dataclass(frozen=True)
class One:
    """An adapter in both ways, and a plain model that it was added to."""

    name: str
    bank: Bank
    slot: int
    merged: dict[str, Tensor]
    reference: nn.Module


class World:
    """Two adapters of every method on one injected model."""

    def __init__(self, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        plain = Model().requires_grad_(False).to(dtype)
        model = Model().requires_grad_(False).to(dtype)
        model.load_state_dict(plain.state_dict())
        self.plain, self.model, self.dtype = plain, model, dtype
        spec = spec_of(model, "toy")
        self.bases = BasisCache(CPU, weights_of(model, spec))
        self.injection = inject(model)
        self.adapters: list[One] = []
        for kind in registered().values():
            self._add_two(kind(**_OWN_SIZES.get(kind.name, {})), spec.targets)

    def _add_two(self, method: Method, shapes: dict) -> None:
        size = 0.1 if isinstance(method, LoRA) else 0.5
        bank = None
        for seed in range(_PER_METHOD):
            methods, layers = random_adapter(method, shapes, self.bases, seed, size)
            bank = bank or Bank(Layout.of(methods, shapes), self.bases, 1, layers)
            merged = materialise(methods, layers, self.injection.linears, self.bases)
            reference = Model().requires_grad_(False).double()
            reference.load_state_dict(self.plain.double().state_dict())
            self.plain.to(self.dtype)
            for target, layer in layers.items():
                basis = self.bases.get(methods[target], shapes[target], target, layer)
                delta = methods[target].delta(layer, shapes[target], basis)
                reference.get_submodule(target).weight += delta.double()
            slot = bank.add(bank.pack(methods, layers))
            self.adapters.append(One(method.name, bank, slot, merged, reference))

    def run(self, x: Tensor, plan: ServingPlan) -> Tensor:
        self.injection.switch.plan = plan
        try:
            out: Tensor = self.model(x)
            return out
        finally:
            self.injection.switch.plan = None


@cache
def world(dtype: torch.dtype) -> World:
    return World(dtype)


def plan_of(world: World, pieces: list[tuple[int, bool, int]]) -> ServingPlan:
    """Return the plan of pieces (adapter or -1, merged?, rows): prompts one after the other."""
    start, banks, merged, bare = 0, {}, [], []
    for who, is_merged, count in pieces:
        index = list(range(start, start + count))
        start += count
        if who < 0:
            bare += index
            continue
        one = world.adapters[who]
        if is_merged:
            merged.append((one, index))
        else:
            bare += index
            banks.setdefault(id(one.bank), (one.bank, []))[1].append((one.slot, index))
    factored = []
    for bank, prompts in banks.values():
        slots, segments, rows = [], [], []
        for slot, index in prompts:
            segments.append(Segment(len(slots), len(slots) + len(index), slot))
            slots += [slot] * len(index)
            rows += index
        tensors = torch.tensor(slots), torch.tensor(rows)
        factored.append(FactoredGroup(bank, Rows(tensors[0], 0, tuple(segments)), tensors[1]))
    groups = tuple(MergedGroup(one.merged, torch.tensor(index)) for one, index in merged)
    base = torch.tensor(bare) if bare else None
    return ServingPlan(base, groups, tuple(factored))


def pieces_of(num_adapters: int) -> st.SearchStrategy[list[tuple[int, bool, int]]]:
    piece = st.tuples(st.integers(-1, num_adapters - 1), st.booleans(), st.integers(1, 4))
    return st.lists(piece, min_size=1, max_size=12)


def _half_tolerance(reference: nn.Module, x: Tensor, true: Tensor) -> float:
    """Return what bfloat16 may be off: its products grow, and with them what rounding does.

    A twentieth more than the plain model is off in it.
    """
    return 0.05 + relative(copy.deepcopy(reference).to(x.dtype)(x), true)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_mixture_gives_each_row_its_own_adapter(
    dtype: torch.dtype, data: st.DataObject
) -> None:
    w = world(dtype)
    pieces = data.draw(pieces_of(len(w.adapters)))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    x = torch.randn(sum(p[2] for p in pieces), 44, generator=generator).to(dtype)
    got = w.run(x, plan_of(w, pieces))
    start = 0
    w.plain.double()
    for who, _, count in pieces:
        rows = slice(start, start + count)
        reference = w.plain if who < 0 else w.adapters[who].reference
        true = reference(x[rows].double())
        tolerance = 1e-5 if dtype == torch.float32 else _half_tolerance(reference, x[rows], true)
        assert relative(got[rows], true) < tolerance, w.adapters[who].name if who >= 0 else "base"
        start += count
    w.plain.to(dtype)


def test_layers_that_see_the_same_rows_share_one_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    w = world(torch.float32)
    one = next(one for one in w.adapters if one.name == "fourierft")
    calls = []
    analyse = Bank.analyse
    monkeypatch.setattr(Bank, "analyse", lambda *a: calls.append(a[1]) or analyse(*a))
    rows = Rows(torch.tensor([one.slot]), 1)
    w.run(torch.ones(1, 44), ServingPlan(factored=(FactoredGroup(one.bank, rows, None),)))
    names = [path.rpartition(".")[2] for path in calls]
    assert names == ["q_proj", "o_proj"] * 2


def test_another_tensor_of_the_same_shape_is_analysed_anew() -> None:
    """Also when it lies where an older one lay."""
    w = world(torch.float32)
    one = next(one for one in w.adapters if one.name == "fourierft")
    group = FactoredGroup(one.bank, Rows(torch.tensor([one.slot]), 1), None)
    path = "layers.0.self_attn.q_proj"
    for seed in range(20):
        x = torch.randn(1, 44, generator=torch.Generator().manual_seed(seed))
        got = group.update(path, x)
        want = one.bank.apply(path, x, group.rows)
        assert got is not None
        assert want is not None
        assert torch.equal(got, want)
        del x
