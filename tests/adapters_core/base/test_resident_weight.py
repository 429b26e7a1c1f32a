"""A copy of a resident weight is known, in whatever precision, and so is one that differs."""

import pytest
import torch

from adapters_core.base.resident_weight import ResidentWeight

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
#: More rows than are compared at once, and than a sample would see.
WEIGHT = torch.randn(9001, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("saved", DTYPES, ids=str)
@pytest.mark.parametrize("loaded", DTYPES, ids=str)
def test_a_copy_is_known_whatever_it_was_loaded_and_saved_in(
    loaded: torch.dtype, saved: torch.dtype
) -> None:
    """From files in bfloat16, which either precision holds, float32 or itself."""
    files = WEIGHT.to(min(loaded, saved, key=lambda dtype: torch.finfo(dtype).eps))
    copy = files.to(saved)
    assert ResidentWeight(files.to(loaded)).is_same(copy.float(), saved)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("row", [0, 4095, 4096, 5001, 9000])
def test_one_row_of_another_training_is_seen(dtype: torch.dtype, row: int) -> None:
    copy = WEIGHT.clone()
    copy[row, 3] += 0.1
    assert not ResidentWeight(WEIGHT.to(dtype)).is_same(copy.to(dtype).float(), dtype)


def test_other_shapes_and_integers_are_no_copies() -> None:
    assert not ResidentWeight(WEIGHT).is_same(WEIGHT[:-1], torch.float32)
    assert not ResidentWeight(WEIGHT).is_same(WEIGHT, torch.int32)
