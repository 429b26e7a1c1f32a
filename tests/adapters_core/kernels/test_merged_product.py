"""A weight plus a narrow product: float64's numbers, and the same bits however rows are cut."""

import pytest
import torch

from adapters_core.kernels import merged_product
from adapters_core.kernels.merged_product import product_parts


@pytest.mark.parametrize("size", [(1, 16), (3, 32), (4, 48), (5, 16), (50, 160)])
@pytest.mark.parametrize("rank", [1, 2, 16, 64])
@pytest.mark.parametrize("part_numbers", [1, 1 << 18])
def test_it_is_the_product_in_float64(
    size: tuple[int, int], rank: int, part_numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merged_product, "_PART_NUMBERS", part_numbers)
    generator = torch.Generator().manual_seed(rank)
    up = torch.randn(size[0], rank, generator=generator)
    down = torch.randn(rank, size[1], generator=generator)
    golden = torch.randn(size, generator=generator)
    before, out = golden.clone(), torch.full(size, torch.nan)
    parts = product_parts(up, down, golden, out)
    assert len(parts) == (1 if part_numbers > 1 else -(-size[0] // 4))
    for part in reversed(parts):
        part()
    # Each of rank + 1 sums rounds once, to half of eps of what it has summed so far.
    sums = golden.double().abs() + up.double().abs() @ down.double().abs()
    error = (out - (golden.double() + up.double() @ down.double())).abs()
    assert bool((error <= (rank + 1) * torch.finfo(torch.float32).eps * sums).all())
    assert torch.equal(golden, before)


def test_a_rows_bits_depend_neither_on_parts_nor_on_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(0)
    up, down = torch.randn(13, 7, generator=generator), torch.randn(7, 48, generator=generator)
    golden = torch.randn(13, 48, generator=generator)
    whole, alone = torch.empty(13, 48), torch.empty(13, 48)
    for part in product_parts(up, down, golden, whole):
        part()
    for row in range(13):
        one = slice(row, row + 1)
        for part in product_parts(up[one], down, golden[one], alone[one]):
            part()
    assert torch.equal(alone, whole)
