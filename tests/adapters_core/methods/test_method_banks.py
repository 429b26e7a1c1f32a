"""What every registered method promises of rows in a bank, whatever their neighbours."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters_core.contract.method import Method, Rows, Segment, Shape
from adapters_core.contract.method_registry import registered
from adapters_core.layers.bank import Bank, Layout
from made import TOY_PATH, random_adapter, toy_bases
from method_cases import EPS, SHAPES, SMALL, each_method, each_shape
from tiny_bases import relative

OTHER_PATH = "model.layers.0.mlp.other"


class Batch:
    """A bank of one layer with `num_adapters` adapters beside another layer, and their deltas."""

    def __init__(self, method: Method, shape: Shape, num_adapters: int = 3) -> None:
        # A layer before ours, so that an offset that is forgotten shows.
        shapes = {OTHER_PATH: SHAPES["square"], TOY_PATH: shape}
        bases = toy_bases(shapes)
        made = [random_adapter(method, shapes, bases, seed) for seed in range(num_adapters)]
        methods = made[0][0]
        self.shape = shape
        self.bank = Bank(Layout.of(methods, shapes), bases, slots=2, layers=made[0][1])
        self.slots = [self.bank.add(self.bank.pack(*one)) for one in made]
        basis = bases.get(methods[TOY_PATH], shape, TOY_PATH)
        self.deltas = {
            slot: methods[TOY_PATH].delta(layers[TOY_PATH], shape, basis)
            for slot, (_, layers) in zip(self.slots, made, strict=True)
        }

    def apply(self, x: torch.Tensor, rows: Rows) -> torch.Tensor:
        update = self.bank.apply(TOY_PATH, x, rows)
        assert update is not None
        return update

    def true(self, x: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            [row.double() @ self.deltas[int(s)].double().T for row, s in zip(x, slots, strict=True)]
        )


def rows_of(decode: list[int], prompts: list[tuple[int, int]]) -> Rows:
    """Return rows with these decode slots, then prompts of (slot, length)."""
    slots, segments = list(decode), []
    for slot, length in prompts:
        segments.append(Segment(len(slots), len(slots) + length, slot))
        slots += [slot] * length
    return Rows(torch.tensor(slots, dtype=torch.int64), len(decode), tuple(segments))


@each_shape
@each_method
def test_mixed_batch_gives_each_row_its_own_delta(method: Method, shape: Shape) -> None:
    batch = Batch(method, shape)
    a, b, c = batch.slots
    rows = rows_of([a, c, b, c, a], [(b, 5), (a, 1), (c, 6)])
    x = torch.randn(17, shape.in_, generator=torch.Generator().manual_seed(2))
    got = batch.apply(x, rows)
    assert got.dtype == torch.float32
    assert relative(got, batch.true(x, rows.slots)) < 16 * EPS


@pytest.mark.parametrize("kind", list(registered().values()), ids=list(registered()))
def test_what_a_signature_leaves_out_is_each_adapters_own(kind: type[Method]) -> None:
    """One bank, two adapters that differ in scale alone: the bank was made for the first."""
    weak = kind(**SMALL.get(kind.name, [{}])[0])
    fields = {field.name for field in dataclasses.fields(kind)}
    scale = next((n for n in ("scale", "scaling", "alpha") if n in fields), None)
    if scale is None:
        pytest.skip(f"{kind.name} has no scale")
    strong = dataclasses.replace(weak, **{scale: 3 * getattr(weak, scale)})
    shapes = {TOY_PATH: SHAPES["odd"]}
    bases = toy_bases(shapes)
    methods, layers = random_adapter(weak, shapes, bases, 0)
    bank = Bank(Layout.of(methods, shapes), bases, layers=layers)
    others = strong.of_layers(shapes)
    if Layout.of(others, shapes).key != bank.layout.key:
        return  # they never meet in one bank
    slots = torch.tensor([bank.add(bank.pack(m, layers)) for m in (methods, others)])
    x = torch.randn(1, 77, generator=torch.Generator().manual_seed(2)).expand(2, 77)
    got = bank.apply(TOY_PATH, x, Rows(slots, 2))
    assert got is not None
    for row, method in zip(got, (methods, others), strict=True):
        own = method[TOY_PATH]
        basis = bases.get(own, shapes[TOY_PATH], TOY_PATH, layers[TOY_PATH])
        delta = own.delta(layers[TOY_PATH], shapes[TOY_PATH], basis)
        assert relative(row, delta.double() @ x[0].double()) < 16 * EPS


@each_method
def test_half_precision_input(method: Method) -> None:
    batch = Batch(method, SHAPES["odd"])
    rows = rows_of(batch.slots, [(batch.slots[1], 5)])
    x = torch.randn(8, 77, generator=torch.Generator().manual_seed(2))
    for dtype in (torch.bfloat16, torch.float16):
        got = batch.apply(x.to(dtype), rows)
        assert got.dtype == dtype
        assert relative(got, batch.true(x.to(dtype), rows.slots)) < 4 * torch.finfo(dtype).eps


@each_method
def test_a_layer_the_adapter_does_not_have_gets_nothing(method: Method) -> None:
    batch = Batch(method, SHAPES["odd"])
    assert batch.bank.apply("absent", torch.ones(1, 77), rows_of([0], [])) is None


patterns = st.tuples(
    st.lists(st.integers(0, 2), max_size=9),
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), max_size=4),
).filter(lambda pattern: pattern[0] or pattern[1])


@pytest.mark.parametrize("kind", list(registered().values()), ids=list(registered()))
@settings(max_examples=40, deadline=None)
@given(pattern=patterns)
def test_a_rows_bits_do_not_depend_on_its_neighbours(
    kind: type[Method], pattern: tuple[list[int], list[tuple[int, int]]]
) -> None:
    method = kind(**SMALL.get(kind.name, [{}])[0])
    batch = _shared_batch(method)
    slots = batch.slots
    decode, prompts = pattern
    rows = rows_of([slots[i] for i in decode], [(slots[i], length) for i, length in prompts])
    x = torch.randn(len(rows.slots), batch.shape.in_, generator=torch.Generator().manual_seed(4))
    got = batch.apply(x, rows)
    if got.any():
        assert relative(got, batch.true(x, rows.slots)) < 16 * EPS
    for t, slot in enumerate(rows.slots[: rows.num_decode].tolist()):
        assert torch.equal(batch.apply(x[t : t + 1], rows_of([slot], []))[0], got[t])
    for segment in rows.segments:
        part = slice(segment.start, segment.stop)
        alone = rows_of([], [(segment.slot, segment.stop - segment.start)])
        assert torch.equal(batch.apply(x[part], alone), got[part])


@each_method
@pytest.mark.parametrize("threads", [1, 2])
def test_a_prompts_bits_do_not_depend_on_how_it_is_cut(method: Method, threads: int) -> None:
    """Prefill may come in chunks of any length."""
    batch = Batch(method, Shape(180, 384), num_adapters=1)
    slot = batch.slots[0]
    x = torch.randn(19, 384, generator=torch.Generator().manual_seed(4))
    torch.set_num_threads(threads)  # the module's fixture puts it back
    try:
        whole = batch.apply(x, rows_of([], [(slot, 19)]))
        for start, stop in [(0, 1), (0, 2), (0, 7), (3, 9), (5, 18), (17, 19), (18, 19)]:
            part = batch.apply(x[start:stop], rows_of([], [(slot, stop - start)]))
            assert torch.equal(part, whole[start:stop])
    finally:
        torch.set_num_threads(1)


_BATCHES: dict[Method, Batch] = {}


def _shared_batch(method: Method) -> Batch:
    if method not in _BATCHES:
        _BATCHES[method] = Batch(method, SHAPES["odd"])
    return _BATCHES[method]
