"""Eight rows at a time: transforms against numpy, batches against torch, and a row's bits."""

import math

import numpy as np
import pytest
import torch

from adapters_core.contract.method import PackedLayer, Rows, Shape
from adapters_core.kernels import spectral_plan, spectral_rows_reference
from adapters_core.kernels.lane_fft import has_lane_transform, lane_fft, lane_transform
from adapters_core.kernels.lane_spectra import (
    has_lanes,
    lane_analysis,
    lane_tables,
    lane_update,
)
from adapters_core.kernels.simd8 import LANES

CPU = torch.device("cpu")
SIZES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 14, 15, 16, 35, 48, 49, 60, 105, 128, 384, 1024, 2048]
SHAPES = [
    Shape(8, 8),
    Shape(8, 96),
    Shape(96, 96),
    Shape(32, 96),
    Shape(280, 120),
    Shape(24, 1024),
    Shape(2048, 512),
]


@pytest.mark.parametrize("lanes", [LANES, 2 * LANES])
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_a_transform_is_numpys_in_every_lane(size: int, backward: bool, lanes: int) -> None:
    generator = np.random.default_rng(size)
    given = generator.standard_normal((2, size, lanes)).astype(np.float32)
    parts = [part.reshape(-1).copy() for part in given]
    work = [np.empty_like(part) for part in parts]
    table = lane_transform(size, backward)
    away = lane_fft(*parts, *work, lanes, size, *table.arrays)
    real, imag = work if away else parts
    entries = given[0].astype(float) + 1j * given[1]
    true = size * np.fft.ifft(entries, axis=0) if backward else np.fft.fft(entries, axis=0)
    got = (real + 1j * imag).reshape(size, lanes)
    assert np.abs(got - true).max() <= 1e-6 * np.abs(true).max()


def test_sizes_with_large_factors_go_another_way() -> None:
    good = [size for size in range(1, 200) if has_lane_transform(size)]
    assert good == [n for n in range(1, 200) if _left_of(n) == 1]
    assert not has_lane_transform(0)
    assert has_lanes(Shape(96, 4096))
    assert not has_lanes(Shape(45, 96))
    assert not has_lanes(Shape(96, 60))
    assert not has_lanes(Shape(8 * 11, 96))


def _left_of(size: int) -> int:
    for prime in (2, 3, 5, 7):
        while size % prime == 0:
            size //= prime
    return size


class Batch:
    """A sparse core of one shape and packed coefficients in five slots."""

    def __init__(self, shape: Shape, n: int) -> None:
        generator = torch.Generator().manual_seed(3)
        rows = torch.randint(shape.out // 2 + 1, (n,), generator=generator)
        cols = torch.randint(shape.in_ // 2 + 1, (n,), generator=generator)
        plus = torch.randint(2, (n,), generator=generator) > 0
        self.shape, self.tables = shape, lane_tables(shape)
        self.plan = spectral_plan(cols, rows, plus, shape.out // 2 + 1, CPU)
        self.layer = PackedLayer(torch.randn(5, n + 9, generator=generator), 4, n)

    def lanes(self, x: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        spectra = lane_analysis(x, self.tables)
        return lane_update(spectra, self.layer, Rows(slots, len(slots)), self.plan, self.tables)

    def torchs(self, x: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        core = spectral_rows_reference(torch.fft.rfft(x.double()), self.layer, slots, self.plan)
        return torch.fft.irfft(core, n=self.shape.out, norm="forward")


@pytest.mark.parametrize("num_rows", [1, 5, 8, 9, 40])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_updates_are_torchs(shape: Shape, num_rows: int) -> None:
    batch = Batch(shape, 35)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(num_rows, shape.in_, generator=generator)
    slots = torch.randint(5, (num_rows,), generator=generator)
    got, true = batch.lanes(x, slots), batch.torchs(x, slots)
    assert got.shape == (num_rows, shape.out)
    assert float((got - true).norm() / true.norm()) < 1e-6


def test_a_row_has_its_bits_in_any_lane_of_any_block() -> None:
    batch = Batch(Shape(280, 120), 203)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 120, generator=generator)
    slots = torch.randint(5, (40,), generator=generator)
    whole = batch.lanes(x, slots)
    for start, stop in [(0, 1), (3, 4), (7, 9), (8, 25), (5, 40), (39, 40)]:
        assert torch.equal(batch.lanes(x[start:stop], slots[start:stop]), whole[start:stop])
    order = torch.randperm(40, generator=generator)
    assert torch.equal(batch.lanes(x[order], slots[order]), whole[order])


def test_scratch_that_holds_nan_does_no_harm() -> None:
    batch = Batch(Shape(96, 64), 30)
    x, slots = torch.ones(3, 64), torch.tensor([0, 1, 2])
    clean = batch.lanes(x, slots)
    for array in batch.tables.scratch._arrays.values():
        array.fill(math.nan)
    assert torch.equal(batch.lanes(x, slots), clean)


def test_rows_that_do_not_lie_together() -> None:
    batch = Batch(Shape(96, 64), 30)
    x = torch.randn(64, 7, generator=torch.Generator().manual_seed(1)).T
    slots = torch.zeros(7, dtype=torch.int64)
    assert torch.equal(batch.lanes(x, slots), batch.lanes(x.contiguous(), slots))


def test_the_last_slot_reads_nothing_behind_the_buffer() -> None:
    batch = Batch(Shape(96, 64), 13)
    x = torch.ones(1, 64)
    pages = torch.full((5 * 13 + 64,), math.nan)
    end = PackedLayer(pages[: 5 * 13].view(5, 13).copy_(batch.layer.rows()), 0, 13)
    got = lane_update(
        lane_analysis(x, batch.tables), end, Rows(torch.tensor([4]), 1), batch.plan, batch.tables
    )
    assert torch.equal(got, batch.lanes(x, torch.tensor([4])))
