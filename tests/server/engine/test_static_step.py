"""Static tensors for steps of single tokens: what stands in them."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters_core.layers.bank import EMPTY_SLOT
from server.adapters.payload import Factored, Merged
from server.engine.static_step import (
    MAX_MERGED,
    Parts,
    StaticStep,
    padded_pages,
    padded_rows,
    parts_of,
    row_counts,
)
from server.engine.step_tensors import pack
from server.scheduling.step import Batch, Work
from server_parts import CPU
from steps_made import PAGE, bank_of, running, steps_of


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_the_table_holds_what_packing_gives(lengths: list[int]) -> None:
    works, page = [], 1
    for length in lengths:
        count = -(-length // PAGE)
        works.append(running(length, list(range(page, page + count))[::-1]))
        page += count
    batch = steps_of(*works)
    packed = pack(batch, PAGE, CPU)
    count = len(lengths)
    step = StaticStep(padded_rows(count), padded_pages(5), 0, 0, PAGE, CPU)
    step.fill(batch.decode, Parts())
    layout = step.layout()
    assert step.ids[0, :count].tolist() == packed.ids[0, :count].tolist()
    assert step.positions[0, :count].tolist() == packed.positions[0, :count].tolist()
    assert layout.write[:count].tolist() == packed.layout.write[:count].tolist()
    assert layout.lengths[:count].tolist() == lengths
    for row, work in zip(layout.pages.tolist(), works, strict=False):
        own = work.sequence.pages
        assert row == [*own, *[0] * (len(row) - len(own))]
    # Rows behind the batch's own see one cell of page 0 and write there.
    assert set(layout.lengths[count:].tolist()) <= {1}
    assert all(0 <= cell < PAGE for cell in layout.write[count:].tolist())
    assert layout.starts.tolist() == list(range(step.rows + 1))
    assert layout.num_single == step.rows


def test_a_table_that_was_longer_keeps_nothing_of_it() -> None:
    bank = bank_of()
    step = StaticStep(4, 8, 1, 0, PAGE, CPU)
    step.fill(
        steps_of(*[running(60, list(range(1, 9)), Factored(bank, 3))] * 4).decode, Parts((bank,))
    )
    step.fill(steps_of(running(3, [5])).decode, Parts((bank,)))
    assert step.slots(0).tolist() == [EMPTY_SLOT] * 4
    assert step.layout().pages.tolist() == [[5, *[0] * 7], *[[0] * 8] * 3]
    assert step.ids.tolist() == [[12, 0, 0, 0]]


def test_every_row_has_its_slot_in_its_own_bank_and_the_empty_one_in_others() -> None:
    one, two = bank_of(), bank_of()
    works = (
        running(3, [1], Factored(one, 2)),
        running(3, [2]),
        running(3, [3], Factored(two, 4)),
        running(3, [4], Factored(one, 3)),
        running(3, [5], Factored(two, 1)),
    )
    parts = parts_of(steps_of(*works))
    assert parts is not None
    assert set(parts.banks) == {one, two}
    step = StaticStep(8, 1, 2, 0, PAGE, CPU)
    step.fill(works, parts)
    slots = {bank: step.slots(number).tolist() for number, bank in enumerate(parts.banks)}
    assert slots[one] == [2, 0, 0, 3, 0, 0, 0, 0]
    assert slots[two] == [0, 0, 4, 0, 1, 0, 0, 0]


def test_rows_of_merged_adapters_are_marked() -> None:
    bank = bank_of()
    merged, partly = Merged({"v": torch.ones(1)}), Factored(bank, 2, weights={"w": torch.ones(1)})
    works = [running(3, [i + 1], p) for i, p in enumerate((merged, None, partly, merged))]
    parts = parts_of(steps_of(*works))
    assert parts is not None
    assert set(map(id, parts.merged)) == {id(merged), id(partly)}
    step = StaticStep(8, 1, 1, 2, PAGE, CPU)
    step.fill(tuple(works), parts)
    assert step.slots(0).tolist() == [0, 0, 2, 0, 0, 0, 0, 0]
    plan = step.plan(parts)
    assert plan is not None
    for group in plan.merged:
        assert group.mask is not None
        own = (
            [True, False, False, True] if group.weights is merged.weights else [False, False, True]
        )
        assert group.mask[:, 0].tolist() == own + [False] * (8 - len(own))
    assert step.layout().pages[:, 0].tolist() == [1, 2, 3, 4, 0, 0, 0, 0]


def test_sizes_are_few_and_large_enough() -> None:
    counts = (1, 4, 5, 8, 9, 13, 17, 32, 33, 49)
    assert [padded_rows(n) for n in counts] == [4, 4, 8, 8, 12, 16, 24, 32, 48, 64]
    assert [padded_pages(n) for n in (1, 2, 4, 5, 64, 65)] == [4, 4, 4, 8, 64, 128]
    assert row_counts(64) == [64, 48, 32, 24, 16, 12, 8, 4]
    assert row_counts(4096)[:2] == [512, 384]


def test_prompts_and_many_merged_adapters_have_no_fixed_form() -> None:
    single = running(3, [1])
    assert parts_of(Batch((single,), (Work.of(running(4, [2]).sequence, 0, 4),))) is None
    assert parts_of(Batch((), ())) is None
    many = [running(3, [1], Merged({})) for _ in range(MAX_MERGED + 1)]
    assert parts_of(steps_of(*many)) is None
    assert parts_of(steps_of(*many[1:])) is not None
    assert parts_of(steps_of(*many[:2] * 128)) is not None
    assert parts_of(steps_of(*many[:2] * 129)) is None  # two times 258 rows


def test_one_merged_adapter_alone_needs_no_mask() -> None:
    merged = Merged({"w": torch.ones(1)})
    alone = parts_of(steps_of(running(3, [1], merged), running(3, [2], merged)))
    assert alone is not None
    assert alone.is_alone
    plan = StaticStep(4, 1, 0, 1, PAGE, CPU).plan(alone)
    assert plan is not None
    assert plan.merged[0].mask is None
    beside = parts_of(steps_of(running(3, [1], merged), running(3, [2])))
    assert beside is not None
    assert not beside.is_alone
