"""Dense sums sixteen rows at a time: a slow double sum's numbers, on any golden weight."""

import math

import pytest
import torch
from torch import Tensor

from adapters_core.contract.layer import Shape
from adapters_core.kernels.lane_sums import (
    has_lane_sums,
    lane_sums,
    sums_plan,
)
from adapters_core.kernels.simd16 import can_stream

SHAPES = [(1, 32), (2, 32), (15, 32), (16, 64), (33, 96), (64, 64), (31, 160), (70, 320)]


def double_sum(values: Tensor, flat: Tensor, shape: Shape) -> Tensor:
    """Return the sums in float64, straight from their definition."""
    p = torch.arange(shape.out)[:, None, None] * (flat // shape.in_)
    q = torch.arange(shape.in_)[None, :, None] * (flat % shape.in_)
    turns = p.double() / shape.out + q.double() / shape.in_
    return 2 * (torch.cos(2 * math.pi * turns) * values.double()).sum(-1)


def made(shape: Shape, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return positions, values and a golden weight."""
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randperm(shape.out * shape.in_, generator=generator)[:n]
    values = torch.randn(flat.numel(), generator=generator)
    return flat, values, torch.randn(*shape, generator=generator)


def error(got: Tensor, true: Tensor) -> float:
    return float((got - true).norm() / true.norm())


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("n", [1, 7, 200])
def test_sums_are_those_of_a_double_sum(size: tuple[int, int], n: int) -> None:
    shape = Shape(*size)
    flat, values, golden = made(shape, n, n)
    plan, true = sums_plan(flat, shape), double_sum(values, flat, shape)
    delta, merged = torch.full(shape, torch.nan), torch.full(shape, torch.nan)
    lane_sums(values, plan, None, delta)
    lane_sums(values, plan, golden, merged)
    assert error(delta, true) < 5e-7
    assert error(merged, golden + true) < 5e-7


def test_every_position_alone_is_its_own_wave() -> None:
    shape = Shape(6, 32)
    one, delta = torch.ones(1), torch.empty(shape)
    for position in range(shape.out * shape.in_):
        flat = torch.tensor([position])
        lane_sums(one, sums_plan(flat, shape), None, delta)
        assert error(delta, double_sum(one, flat, shape)) < 5e-7


def test_the_golden_weight_stays_as_it_was() -> None:
    shape = Shape(33, 96)
    flat, values, golden = made(shape, 50, 0)
    before = golden.clone()
    lane_sums(values, sums_plan(flat, shape), golden, torch.empty(shape))
    assert torch.equal(golden, before)


def test_two_merges_have_the_same_bits_whatever_was_in_their_memory() -> None:
    shape = Shape(70, 320)
    flat, values, golden = made(shape, 300, 1)
    plan = sums_plan(flat, shape)
    first, second = torch.zeros(shape), torch.full(shape, 7.0)
    lane_sums(values, plan, golden, first)
    lane_sums(values, plan, golden, second)
    assert torch.equal(first, second)


@pytest.mark.parametrize(("size", "fits"), [((5, 96), True), ((5, 48), False), ((5, 704), False)])
def test_lengths_that_lanes_cannot_hold_are_told(size: tuple[int, int], fits: bool) -> None:
    assert has_lane_sums(Shape(*size), 7) == fits
    assert not has_lane_sums(Shape(*size), 20_000)


def test_only_whole_float32_matrices_are_written() -> None:
    plain = torch.zeros(4, 12)
    assert can_stream(None, plain)
    assert not can_stream(plain.T, plain)
    assert not can_stream(plain, plain.bfloat16())


def test_numbers_are_streamed_to_whole_lines_of_memory_alone() -> None:
    memory = torch.zeros(2 * 96 + 16)
    aside = memory.data_ptr() % 64 // 4  # numbers behind the beginning of a line
    at_a_line, within = (memory[(16 - aside) % 16 + i :][:96].view(3, 32) for i in (0, 1))
    assert can_stream(within, at_a_line)
    assert not can_stream(at_a_line, within)
