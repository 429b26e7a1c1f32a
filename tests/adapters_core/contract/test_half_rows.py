import pytest
import torch

from adapters_core.contract.half_rows import doubled, half_width, halved
from adapters_core.contract.rows import PackedLayer


def spread(size: float) -> torch.Tensor:
    """Return numbers of all sizes from one down to 2^-28 of the largest."""
    generator = torch.Generator().manual_seed(1)
    return size * torch.randn(3000, generator=generator) * 2.0 ** -torch.linspace(0, 24, 3000)


@pytest.mark.parametrize("size", [1e-30, 1e-6, 1.0, 3e37])
def test_numbers_are_off_by_eleven_bits_at_most(size: float) -> None:
    packed = spread(size)
    row = halved(packed)
    assert row.dtype == torch.float16
    assert len(row) == half_width(3000)
    got = doubled(row[:3000], row[-1])
    kept = packed.abs() >= 2.0**-28 * packed.abs().max()
    assert kept.sum() > 2800
    assert (got - packed)[kept].abs().le(2.0**-11 * packed[kept].abs()).all()
    assert (got - packed).abs().max() <= 2.0**-11 * packed.abs().max()


def test_what_was_halved_is_halved_to_the_same_bits() -> None:
    row = halved(spread(1.0))
    assert torch.equal(halved(doubled(row[:3000], row[-1])), row)


def test_zeros_and_the_largest_number() -> None:
    assert not halved(torch.zeros(5))[:-1].any()
    largest = torch.full((2,), torch.finfo(torch.float32).max)
    row = halved(largest)
    assert row.isfinite().all()
    assert row[0] == 2.0**15


def test_a_layer_reads_its_rows_in_either_precision() -> None:
    packed = torch.stack([spread(1.0)[:40], spread(1e-9)[:40]])
    half = torch.stack([halved(row) for row in packed])
    plain, layer = PackedLayer(packed, 5, 30), PackedLayer(half, 5, 30)
    slots = torch.tensor([1, 0, 1])
    torch.testing.assert_close(layer.of(slots), plain.of(slots), rtol=2.0**-11, atol=0)
    torch.testing.assert_close(layer.of(1), plain.of(1), rtol=2.0**-11, atol=0)
    assert layer.of(1).dtype == torch.float32
