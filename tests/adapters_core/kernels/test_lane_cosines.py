"""Cosine transforms eight rows at a time: against float64 sums, and a row's bits."""

import math

import pytest
import torch
from torch import Tensor

from adapters_core.contract.method import PackedLayer, Shape
from adapters_core.kernels.lane_cosines import (
    cosine_lanes,
    has_cosine_lanes,
    lane_dct,
    lane_located,
)
from adapters_core.kernels.located import located_rows_reference
from adapters_core.transforms.cosine import CosineTable, cosine_table, dct, idct

CPU = torch.device("cpu")
SHAPES = [Shape(16, 16), Shape(32, 48), Shape(144, 160), Shape(1024, 80), Shape(96, 2048)]


def table(size: int, dtype: torch.dtype = torch.float32) -> CosineTable:
    return cosine_table(size, CPU, dtype, dense=False)


def turn(size: int) -> Tensor:
    made = table(size).turn
    assert made is not None
    return made


class Batch:
    """Locations and values of five slots, on one shape."""

    def __init__(self, shape: Shape, n: int) -> None:
        generator = torch.Generator().manual_seed(3)
        rows = torch.randint(shape.out, (5, n), generator=generator)
        cols = torch.randint(shape.in_, (5, n), generator=generator)
        values = torch.randn(5, n, generator=generator)
        self.shape, self.out, self.in_ = shape, cosine_lanes(shape.out), cosine_lanes(shape.in_)
        self.layer = PackedLayer(torch.cat([values, rows, cols], dim=1), 0, 3 * n)

    def cosines(self, x: Tensor, num_rows: int | None = None) -> Tensor:
        return lane_dct(x, num_rows or len(x), self.in_, turn(self.shape.in_))

    def lanes(self, x: Tensor, slots: Tensor) -> Tensor:
        return lane_located(self.cosines(x), self.layer, slots, self.out, turn(self.shape.out))

    def true(self, x: Tensor, slots: Tensor) -> Tensor:
        cosines = dct(x.double(), table(self.shape.in_, torch.float64))
        core = located_rows_reference(cosines, self.layer, slots, self.shape.out)
        return idct(core, table(self.shape.out, torch.float64))


def drawn(num_rows: int, size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(num_rows, size, generator=generator)
    return x, torch.randint(5, (num_rows,), generator=generator)


def error(got: Tensor, true: Tensor) -> float:
    return float((got - true).norm() / true.norm())


@pytest.mark.parametrize("num_rows", [1, 5, 8, 9, 40])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_transforms_and_updates_are_those_in_float64(shape: Shape, num_rows: int) -> None:
    batch, (x, slots) = Batch(shape, 35), drawn(num_rows, shape.in_)
    true = dct(x.double(), table(shape.in_, torch.float64))
    assert error(batch.cosines(x), true) < 1e-6
    got = batch.lanes(x, slots)
    assert got.shape == (num_rows, shape.out)
    assert error(got, batch.true(x, slots)) < 1e-6


def test_a_row_has_its_bits_in_any_lane_of_any_block() -> None:
    batch, (x, slots) = Batch(Shape(144, 160), 203), drawn(40, 160)
    whole = batch.lanes(x, slots)
    for start, stop in [(0, 1), (3, 4), (7, 9), (8, 25), (5, 40), (39, 40)]:
        assert torch.equal(batch.lanes(x[start:stop], slots[start:stop]), whole[start:stop])
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    assert torch.equal(batch.lanes(x[order], slots[order]), whole[order])


def test_rows_of_zeros_follow_and_scratch_that_holds_nan_does_no_harm() -> None:
    batch, (x, slots) = Batch(Shape(96, 64), 30), drawn(3, 64)
    clean = batch.lanes(x, slots)
    for lanes in (batch.in_, batch.out):
        for array in lanes.scratch._arrays.values():
            array.fill(math.nan)
    assert torch.equal(batch.lanes(x, slots), clean)
    padded = batch.cosines(x, 4)
    assert torch.equal(padded[:3], batch.cosines(x))
    assert not padded[3:].any()


def test_lengths_that_lanes_cannot_hold_are_told() -> None:
    found = [size for size in range(1, 200) if has_cosine_lanes(size)]
    assert found == [16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 192]


def test_tables_have_lanes_in_float32_where_no_matrix_is_used() -> None:
    assert table(144).lanes is not None
    assert table(144, torch.float64).lanes is None
    assert table(150).lanes is None
    assert cosine_table(64, CPU, torch.float32).lanes is None
