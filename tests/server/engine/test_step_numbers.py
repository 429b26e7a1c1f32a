"""A step's numbers reach a device in one copy, and are the numbers that were put."""

from typing import Any

import pytest
import torch

from bench.lib.counting import counted
from server.engine import step_numbers
from server.engine.step_numbers import StepNumbers
from server_parts import CPU

from .test_step_tensors import KernelBank, factored, packed, sequence

LISTS: list[tuple[Any, torch.dtype]] = [
    ([[1, 2, 3]], torch.int64),
    ([True, False, True], torch.bool),
    ([], torch.int64),
    ([[7, 8], [9, 10], [11, 12]], torch.int32),
    (list(range(100)), torch.int64),
]


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a processor's numbers take the way to a device."""
    monkeypatch.setattr(step_numbers, "goes_at_once", lambda device: False)


@pytest.mark.parametrize("size", [64, 1 << 20])
def test_what_was_put_is_there_after_sending(
    size: int, together: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_numbers, "_COPY_BYTES", size)
    numbers = StepNumbers(CPU)
    for _ in range(2):  # what is put after sending is another copy, beside what is there
        made = [numbers.put(given, dtype) for given, dtype in LISTS]
        numbers.send()
        for tensor, (given, dtype) in zip(made, LISTS, strict=True):
            assert torch.equal(tensor, torch.tensor(given, dtype=dtype))
            assert tensor.dtype == dtype
            assert tensor.is_contiguous()
            assert tensor.data_ptr() % 16 == 0


def test_a_later_step_leaves_an_earlier_ones_numbers_alone(together: None) -> None:
    first, second = StepNumbers(CPU), StepNumbers(CPU)
    one, other = first.put([1, 2]), second.put([3, 4])
    first.send()
    second.send()
    assert one.tolist() == [1, 2]
    assert other.tolist() == [3, 4]


def test_a_step_is_the_same_whichever_way_its_numbers_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bank = KernelBank()

    def step() -> Any:
        singles = [sequence(10, [2, 5], factored(bank, 3)), sequence(4, [1])]
        pieces = [(sequence(7, [3], factored(bank, 2)), 2, 6)]
        return packed(singles, pieces)

    plain = step()
    monkeypatch.setattr(step_numbers, "goes_at_once", lambda device: False)
    found = step()
    assert torch.equal(found.ids, plain.ids)
    assert torch.equal(found.positions, plain.positions)
    assert torch.equal(found.wanted, plain.wanted)
    assert torch.equal(found.layout.write, plain.layout.write)
    assert torch.equal(found.layout.clear, plain.layout.clear)
    (group,), (expected,) = found.plan.factored, plain.plan.factored
    assert torch.equal(group.rows.slots, expected.rows.slots)
    assert torch.equal(group.index, expected.index)
    assert torch.equal(group.slots, expected.slots)


def test_one_copy_takes_all_numbers_and_the_host_does_not_wait() -> None:
    with torch.inference_mode(), counted() as tally:
        numbers = StepNumbers(torch.device("meta"))
        for given, dtype in LISTS:
            numbers.put(given, dtype)
        numbers.send()
    assert (tally.cost.uploads, tally.cost.waits) == (1, 0)
