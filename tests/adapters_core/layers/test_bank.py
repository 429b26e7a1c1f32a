"""Banks: rows stay where they are while others come and go."""

from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from adapters_core.contract.method import Method, Rows, Segment, Shape
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.methods import FourierFT, LoRA
from tiny_bases import random_layer, relative

SHAPES = {"a": Shape(12, 18), "b": Shape(20, 12)}
METHODS = {"a": FourierFT(n=9), "b": FourierFT(n=15)}


def bank_of(methods: dict[str, Method], bases: BasisCache, slots: int = 2) -> Bank:
    return Bank(Layout.of(methods, SHAPES), bases, slots)


def layers_of(methods: dict[str, Method], seed: int) -> dict[str, dict[str, torch.Tensor]]:
    return {t: random_layer(method, SHAPES[t], seed) for t, method in methods.items()}


def decode(slots: list[int]) -> Rows:
    return Rows(torch.tensor(slots, dtype=torch.int64), len(slots))


def test_growth_keeps_rows_and_slots(bases: BasisCache) -> None:
    bank = bank_of(METHODS, bases, slots=1)
    rows = [bank.pack(METHODS, layers_of(METHODS, seed)) for seed in range(5)]
    slots = [bank.add(row) for row in rows]
    assert len(set(slots)) == 5
    for slot, row in zip(slots, rows, strict=True):
        assert torch.equal(bank._buffer[slot], row)


def test_a_row_that_cannot_be_written_takes_no_slot(bases: BasisCache) -> None:
    bank = bank_of(METHODS, bases, slots=1)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="size"):
            bank.add(torch.zeros(bank.layout.width + 1))
    assert bank.is_empty
    before = bank.buffer
    slot = bank.add(bank.pack(METHODS, layers_of(METHODS, 0)))
    assert bank.buffer is before  # the one slot was free
    bank.remove(slot)


def test_growth_leaves_readers_on_their_buffer(bases: BasisCache) -> None:
    bank = bank_of(METHODS, bases, slots=1)
    slot = bank.add(bank.pack(METHODS, layers_of(METHODS, 0)))
    held, before = bank._buffer, bank._buffer.clone()
    for seed in range(1, 4):
        bank.add(bank.pack(METHODS, layers_of(METHODS, seed)))
    assert bank._buffer is not held
    assert torch.equal(held, before)
    assert torch.equal(bank._buffer[slot], before[slot])


def test_freed_slots_are_used_again_and_fully_overwritten(bases: BasisCache) -> None:
    bank = bank_of(METHODS, bases, slots=2)
    first, second = bank.add(torch.full((24,), 7.0)), bank.add(torch.full((24,), 8.0))
    bank.remove(first)
    row = bank.pack(METHODS, layers_of(METHODS, 3))
    assert bank.add(row) == first
    assert torch.equal(bank._buffer[first], row)
    assert torch.equal(bank._buffer[second], torch.full((24,), 8.0))
    assert bank._buffer.shape[0] == 3  # and the empty one


def test_double_free_is_a_broken_invariant(bases: BasisCache) -> None:
    bank = bank_of(METHODS, bases)
    slot = bank.add(torch.zeros(24))
    bank.remove(slot)
    with pytest.raises(AssertionError, match="freed twice"):
        bank.remove(slot)


def test_row_bytes_is_what_a_row_takes(bases: BasisCache) -> None:
    bank = bank_of(METHODS, bases)
    assert bank.row_bytes == 4 * bank.pack(METHODS, layers_of(METHODS, 0)).numel() == 4 * 24


def test_a_row_outside_inference_mode_may_be_added_and_applied(bases: BasisCache) -> None:
    """The loader's thread adds rows; the engine's applies them under inference mode."""
    bank = bank_of(METHODS, bases, slots=1)
    slots = [bank.add(bank.pack(METHODS, layers_of(METHODS, seed))) for seed in range(2)]
    outside = bank.apply("a", torch.ones(1, 18), decode(slots[:1]))
    with torch.inference_mode():
        inside = bank.apply("a", torch.ones(1, 18), decode(slots[:1]))
        slots.append(bank.add(bank.pack(METHODS, layers_of(METHODS, 2))))
    slots.append(bank.add(bank.pack(METHODS, layers_of(METHODS, 3))))
    assert outside is not None
    assert torch.equal(outside, inside)


SIMILAR = [
    ({"a": FourierFT(n=9)}, {"a": FourierFT(n=9, scale=2.0)}, True),
    ({"a": FourierFT(n=9)}, {"a": FourierFT(n=8)}, False),
    ({"a": FourierFT(n=9)}, {"a": FourierFT(n=9, seed=1)}, False),
    ({"a": FourierFT(n=9)}, {"b": FourierFT(n=9)}, False),
    ({"a": FourierFT(n=9)}, METHODS, False),
    ({"a": LoRA(r=2)}, {"a": LoRA(r=2, alpha=1.0, rslora=True)}, True),
    ({"a": LoRA(r=2)}, {"a": LoRA(r=3)}, False),
    ({"a": LoRA(r=2)}, {"a": FourierFT(n=60)}, False),
]


@pytest.mark.parametrize(("one", "two", "same"), SIMILAR)
def test_layouts_are_shared_by_equal_signatures(
    one: dict[str, Any], two: dict[str, Any], same: bool
) -> None:
    assert (Layout.of(one, SHAPES).key == Layout.of(two, SHAPES).key) is same


def test_scales_are_each_adapters_own_in_a_shared_bank(bases: BasisCache) -> None:
    small: dict[str, Method] = {"a": FourierFT(n=9, scale=1.0)}
    large: dict[str, Method] = {"a": FourierFT(n=9, scale=4.0)}
    bank = bank_of(small, bases)
    coefficients = layers_of(small, 0)
    slots = [bank.add(bank.pack(small, coefficients))]
    slots.append(bank.add(bank.pack(large, coefficients)))
    got = bank.apply("a", torch.ones(2, 18), decode(slots))
    assert got is not None
    assert relative(got[1], 4 * got[0]) < 1e-6


class BankMachine(RuleBasedStateMachine):
    """Adapters come and go; whoever is in the bank always gets his own update."""

    kinds: tuple[dict[str, Method], ...] = (METHODS, {"a": LoRA(r=2), "b": LoRA(r=1)})

    def __init__(self) -> None:
        super().__init__()
        self.bases = BasisCache(torch.device("cpu"))
        self.banks = [bank_of(methods, self.bases, slots=1) for methods in self.kinds]
        self.live: list[dict[int, dict[str, torch.Tensor]]] = [{}, {}]
        self.seed = 0

    @rule(kind=st.integers(0, 1))
    def add(self, kind: int) -> None:
        methods, self.seed = self.kinds[kind], self.seed + 1
        layers = layers_of(methods, self.seed)
        slot = self.banks[kind].add(self.banks[kind].pack(methods, layers))
        assert slot not in self.live[kind], "a slot in use was given away"
        self.live[kind][slot] = {
            t: m.delta(layers[t], SHAPES[t], self.bases.get(m, SHAPES[t]))
            for t, m in methods.items()
        }

    @precondition(lambda self: any(self.live))
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from([k for k in (0, 1) if self.live[k]]))
        slot = data.draw(st.sampled_from(sorted(self.live[kind])))
        del self.live[kind][slot]
        self.banks[kind].remove(slot)

    @precondition(lambda self: any(self.live))
    @rule(data=st.data(), layer=st.sampled_from(["a", "b"]))
    def apply(self, data: st.DataObject, layer: str) -> None:
        kind = data.draw(st.sampled_from([k for k in (0, 1) if self.live[k]]))
        one = st.sampled_from(sorted(self.live[kind]))
        slots = data.draw(st.lists(one, max_size=5))
        num_decode, segments = len(slots), []
        for slot in data.draw(st.lists(one, max_size=2)):
            segments.append(Segment(len(slots), len(slots) + 3, slot))
            slots += [slot] * 3
        if not slots:
            return
        x = torch.randn(len(slots), SHAPES[layer].in_)
        rows = Rows(torch.tensor(slots), num_decode, tuple(segments))
        got = self.banks[kind].apply(layer, x, rows)
        true = torch.stack(
            [self.live[kind][s][layer] @ row for s, row in zip(slots, x, strict=True)]
        )
        assert got is not None
        assert relative(got, true) < 1e-5

    @invariant()
    def no_slot_is_free_and_live(self) -> None:
        for bank, live in zip(self.banks, self.live, strict=True):
            assert len(set(bank._free)) == len(bank._free)
            assert not set(bank._free) & set(live)
            assert len(bank._free) + len(live) == bank._buffer.shape[0] - 1  # and the empty one


BankMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestBankMachine = BankMachine.TestCase


def test_bases_are_computed_once_and_bounded() -> None:
    bases = BasisCache(torch.device("cpu"), max_entries=2)
    shape = Shape(8, 8)
    first = bases.get(FourierFT(n=4), shape)
    assert bases.get(FourierFT(n=4, scale=9.0), shape) is first
    for seed in (1, 2):
        bases.get(FourierFT(n=4, seed=seed), shape)
    assert len(bases._entries) == 2
    assert bases.get(FourierFT(n=4), shape) is not first


def test_float64_is_for_one_method_and_shape(bases: BasisCache) -> None:
    bases.get(FourierFT(n=4), Shape(8, 8))
    bases.use_float64("fourierft", Shape(8, 8))
    assert bases.get(FourierFT(n=4), Shape(8, 8)).dtype == torch.float64
    assert bases.get(FourierFT(n=4), Shape(8, 6)).dtype == torch.float32


def test_slots_are_given_back_while_the_bank_grows(bases: BasisCache) -> None:
    """Growth copies everything: whoever adds waits for that, and nobody else."""
    bank = bank_of(METHODS, bases, slots=1)
    slot = bank.add(torch.full((24,), 7.0))
    with bank._writing:
        assert torch.equal(bank.row(slot), torch.full((24,), 7.0))
        bank.remove(slot)
    assert bank.is_empty
    assert bank.add(torch.zeros(24)) == slot
