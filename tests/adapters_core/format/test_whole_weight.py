"""A weight of an adapter's own replaces the base's exactly, wherever the base stands."""

import pytest
import torch

from adapters_core.contract.layer import Shape
from adapters_core.format.replacement import Golden
from adapters_core.format.token_rows import ROWS, TokenRows
from adapters_core.format.whole_weight import WholeWeight

SHAPE = Shape(6, 4)
each_side = pytest.mark.parametrize("looked_up", [False, True])


@each_side
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_merged_is_the_files_weight_rounded_once(looked_up: bool, dtype: torch.dtype) -> None:
    method, golden = WholeWeight(looked_up), torch.randn(SHAPE).to(dtype)
    own = torch.randn(method.tensors(SHAPE)["weight"].shape)
    out = torch.empty_like(golden)
    method.merge_many([{"weight": own}], [golden], [out], SHAPE, Golden(golden))
    assert torch.equal(out, (own.T if looked_up else own).to(dtype))


@each_side
def test_the_update_is_made_where_the_base_stands(looked_up: bool) -> None:
    """Coefficients are in memory; tensors on `meta` refuse to be mixed with others."""
    basis = Golden(torch.empty(SHAPE, device="meta", dtype=torch.bfloat16))
    whole, rows = WholeWeight(looked_up), TokenRows((1, 3), looked_up)
    own = torch.randn(whole.tensors(SHAPE)["weight"].shape)
    delta = whole.delta({"weight": own}, SHAPE, basis)
    assert (delta.shape, delta.device.type) == (SHAPE, "meta")
    packed = rows.pack({ROWS: torch.randn(rows.tensors(SHAPE)[ROWS].shape)}, SHAPE, basis)
    assert (len(packed), packed.device.type) == (rows.packed_length(SHAPE), "meta")
