"""A copy with additions to a few cells: torch's bits, however it is cut."""

import pytest
import torch

from adapters_core.kernels import merged_cells
from adapters_core.kernels.merged_cells import cell_parts


@pytest.mark.parametrize("count", [0, 1, 3, 40, 160])
@pytest.mark.parametrize("part_numbers", [16, 48, 1 << 18])
def test_it_is_a_copy_with_additions(
    count: int, part_numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merged_cells, "_PART_NUMBERS", part_numbers)
    generator = torch.Generator().manual_seed(count)
    golden = torch.randn(10, 16, generator=generator)
    cells = torch.randperm(160, generator=generator)[:count].sort().values
    addends = torch.randn(count, generator=generator)
    before, out = golden.clone(), torch.full((10, 16), torch.nan)
    parts = cell_parts(cells, addends, golden, out)
    assert len(parts) == -(-160 // part_numbers)
    for part in reversed(parts):
        part()
    true = golden.view(-1).index_add(0, cells, addends)
    assert torch.equal(out.view(-1), true)
    assert torch.equal(golden, before)
