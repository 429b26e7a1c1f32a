"""From a batch to tensors: padding, cache cells, and which rows go where."""

from typing import Any

import pytest
import torch
from torch import Tensor

from adapters_core.contract.method import Segment
from server.adapters.payload import Factored, Merged
from server.adapters.residency import Entry
from server.engine.step_tensors import StepInput, pack
from server.scheduling.sequence import Sampling, TokenSequence
from server.scheduling.step import Batch, Work
from server_parts import CPU

PAGE = 8


def sequence(length: int, pages: list[int], payload: object = None) -> TokenSequence:
    lease = Entry("key", payload=payload) if payload else None
    made = TokenSequence(tuple(range(10, 10 + length)), Sampling(max_tokens=4), lease)
    made.pages = pages
    return made


class PlainBank:
    """One whose updates torch computes."""

    has_kernels = False


class KernelBank:
    """One whose updates kernels add."""

    has_kernels = True


def factored(bank: Any, slot: int) -> Factored:
    return Factored(bank, slot)


def packed(decode: list[TokenSequence], prefill: list[tuple[TokenSequence, int, int]]) -> StepInput:
    singles = tuple(Work.of(s, len(s.tokens) - 1, len(s.tokens)) for s in decode)
    pieces = tuple(Work.of(s, start, stop) for s, start, stop in prefill)
    return pack(Batch(singles, pieces), PAGE, CPU)


def numbers(tensor: Tensor | None) -> list[int] | None:
    return None if tensor is None else tensor.tolist()


def test_rows_stand_in_order_and_padding_writes_to_page_zero() -> None:
    step = packed([sequence(10, [2, 5])], [(sequence(7, [3]), 2, 6)])
    assert step.ids.tolist() == [[19, 12, 13, 14, 15, 0, 0, 0]]
    assert step.positions.tolist() == [[9, 2, 3, 4, 5, 0, 0, 0]]
    assert step.layout.write.tolist() == [41, 26, 27, 28, 29, 0, 1, 2]
    assert [(s.first, s.count, s.position, s.length) for s in step.layout.decode] == [(0, 1, 9, 10)]
    assert [(s.first, s.count, s.position, s.length) for s in step.layout.prefill] == [(1, 4, 2, 6)]


@pytest.mark.parametrize(("length", "rows"), [(1, 32), (31, 32), (32, 32), (33, 64)])
def test_rows_may_be_padded_to_a_larger_multiple(length: int, rows: int) -> None:
    prompt = Work.of(sequence(length, [3, 4, 5, 6, 7], factored(KernelBank(), 2)), 0, length)
    step = pack(Batch((), (prompt,)), PAGE, CPU, multiple=32)
    assert step.ids.shape == step.positions.shape == (1, rows)
    # Padding writes to page 0 over and over, has no adapter, and no logits are wanted of it.
    padding = rows - length
    assert step.layout.write.tolist()[length:] == [i % PAGE for i in range(padding)]
    assert step.wanted.tolist() == [length - 1] * 4
    assert step.plan is not None
    [group] = step.plan.factored
    assert numbers(group.slots) == [2] * length + [0] * padding


def test_cells_behind_a_prompts_piece_are_cleared_to_the_pages_end() -> None:
    step = packed([sequence(10, [2, 5])], [(sequence(20, [3, 4, 6]), 0, 11)])
    assert step.layout.clear.tolist() == [35, 36, 37, 38, 39]
    full = packed([], [(sequence(8, [1]), 0, 8)])
    assert full.layout.clear.dtype == torch.long
    assert full.layout.clear.tolist() == []


def test_logits_are_wanted_of_the_last_rows_that_sample() -> None:
    step = packed(
        [sequence(3, [1]), sequence(4, [2])],
        [(sequence(6, [3]), 0, 6), (sequence(9, [4, 5]), 0, 3)],
    )
    assert step.num_wanted == 3
    assert step.wanted.tolist() == [0, 1, 7, 10]  # padded with the last real row


def test_a_step_that_samples_nothing_has_an_empty_long_index() -> None:
    step = packed([], [(sequence(9, [1, 2]), 0, 4)])
    assert step.num_wanted == 0
    assert step.wanted.dtype == torch.long
    assert step.wanted.tolist() == []


def test_the_base_alone_needs_no_plan() -> None:
    assert packed([sequence(3, [1])], [(sequence(6, [2]), 0, 6)]).plan is None


def test_one_bank_for_all_rows_works_in_place_with_padding() -> None:
    bank = PlainBank()
    step = packed(
        [sequence(3, [1], factored(bank, 4)), sequence(3, [2], factored(bank, 6))],
        [(sequence(3, [3], factored(bank, 9)), 0, 3)],
    )
    assert step.plan is not None
    (group,) = step.plan.factored
    assert step.plan.base is None
    assert group.index is None
    assert group.rows.slots.tolist() == [4, 6, 9, 9, 9, 4, 4, 4]
    assert group.rows.num_decode == 2
    assert group.rows.segments == (Segment(2, 5, 9), Segment(5, 8, 4))


def test_rows_of_the_base_between_factored_ones_make_an_index() -> None:
    bank = PlainBank()
    step = packed(
        [sequence(3, [1], factored(bank, 4)), sequence(3, [2])],
        [(sequence(3, [3], factored(bank, 9)), 0, 3)],
    )
    assert step.plan is not None
    (group,) = step.plan.factored
    assert numbers(group.index) == [0, 2, 3, 4]
    assert group.rows.slots.tolist() == [4, 9, 9, 9]
    assert (group.rows.num_decode, group.rows.segments) == (1, (Segment(1, 4, 9),))


def test_every_bank_has_its_own_group() -> None:
    one, two = PlainBank(), PlainBank()
    step = packed(
        [sequence(3, [1], factored(one, 1)), sequence(3, [2], factored(two, 2))],
        [(sequence(2, [3], factored(one, 3)), 0, 2)],
    )
    assert step.plan is not None
    first, second = step.plan.factored
    assert (first.bank, numbers(first.index)) == (one, [0, 2, 3])
    assert (second.bank, numbers(second.index)) == (two, [1])


def test_kernels_get_the_slots_of_all_rows() -> None:
    bank, other = KernelBank(), PlainBank()
    step = packed(
        [sequence(3, [1], factored(bank, 4)), sequence(3, [2], factored(other, 3))],
        [(sequence(2, [3]), 0, 2), (sequence(3, [3], factored(bank, 9)), 0, 3)],
    )
    assert step.plan is not None
    by_kernels, by_torch = step.plan.factored
    assert numbers(by_kernels.slots) == [4, 0, 0, 0, 9, 9, 9, 0]
    assert numbers(by_kernels.index) == [0, 4, 5, 6]  # for layers without kernels
    assert by_torch.slots is None


def test_one_merged_adapter_alone_needs_no_index() -> None:
    payload = Merged({"w": torch.ones(1)})
    step = packed([sequence(3, [1], payload)], [(sequence(4, [2], payload), 0, 4)])
    assert step.plan is not None
    (group,) = step.plan.merged
    assert group.weights is payload.weights
    assert group.index is None
    assert step.plan.base is None


def test_merged_rows_and_the_others_cover_the_batch_in_multiples_of_four() -> None:
    one, two, bank = Merged({}), Merged({}), PlainBank()
    step = packed(
        [sequence(3, [1], one), sequence(3, [2]), sequence(3, [3], factored(bank, 5))],
        [(sequence(6, [4], two), 0, 6), (sequence(2, [5], one), 0, 2)],
    )
    assert step.plan is not None
    first, second = step.plan.merged
    assert numbers(first.index) == [0, 9, 10, 10]
    assert numbers(second.index) == [3, 4, 5, 6, 7, 8, 8, 8]
    # The base's own, the factored one, and the padding row.
    assert numbers(step.plan.base) == [1, 2, 11, 11]
    assert numbers(step.plan.factored[0].index) == [2]


def test_two_merged_adapters_that_fill_the_batch_leave_the_base_no_rows() -> None:
    step = packed([], [(sequence(4, [1], Merged({})), 0, 4), (sequence(4, [2], Merged({})), 0, 4)])
    assert step.plan is not None
    assert step.plan.base is None
    assert [numbers(group.index) for group in step.plan.merged] == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("rows", range(1, 10))
def test_the_number_of_rows_is_a_multiple_of_four(rows: int) -> None:
    step = packed([], [(sequence(12, [1, 2]), 0, rows)])
    assert step.ids.shape == step.positions.shape == (1, -(-rows // 4) * 4)
    assert step.layout.write.shape[0] == step.ids.shape[1]
