"""Merged rows that a mask takes are those that an index picks out."""

import pytest
import torch
from torch import Tensor, nn

from adapters_core.base.module_rows import RowsNotKnown, put_in
from adapters_core.layers.linear import AdaptedLinear, Switch
from adapters_core.layers.serving_plan import MergedGroup, ServingPlan

ROWS = 8
#: Of each row: the base, or a merged adapter.
OWNERS = torch.tensor([0, 1, 2, 1, 0, 0, 2, 2])


def rows_of(owner: int) -> Tensor:
    return (owner == OWNERS).nonzero()[:, 0]


@pytest.mark.parametrize("changed", [(1, 2), (2,)])
def test_masked_rows_are_indexed_rows(changed: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    layer = AdaptedLinear(nn.Linear(16, 12), "q", Switch())
    weights = {
        i: {"q": torch.randn(12, 16, generator=generator)} if i in changed else {} for i in (1, 2)
    }
    x = torch.randn(ROWS, 16, generator=generator)
    indexed = ServingPlan(rows_of(0), [MergedGroup(weights[i], rows_of(i)) for i in (1, 2)])
    masks = {i: (i == OWNERS)[:, None] for i in (1, 2)}
    masked = ServingPlan(merged=[MergedGroup(weights[i], None, masks[i]) for i in (1, 2)])
    assert torch.allclose(masked.forward(layer, x), indexed.forward(layer, x), atol=1e-6)


def test_rows_of_others_may_be_anything() -> None:
    layer = AdaptedLinear(nn.Linear(4, 4), "q", Switch())
    mask = torch.tensor([[True], [False]])
    weights = {"q": torch.full((4, 4), torch.nan)}
    y = ServingPlan(merged=[MergedGroup(weights, None, mask)]).forward(layer, torch.ones(2, 4))
    assert y[0].isnan().all()
    assert torch.equal(y[1], layer.base_rows(torch.ones(2, 4))[1])


def test_answers_of_several_tensors_are_put_together() -> None:
    mask = torch.tensor([[True], [False], [True]])
    own = (torch.ones(3, 2, 2), torch.ones(3))
    first, second = put_in(mask, own, (torch.zeros(3, 2, 2), torch.zeros(3)))
    assert first[:, 1, 1].tolist() == second.tolist() == [1, 0, 1]
    with pytest.raises(RowsNotKnown):
        put_in(mask, torch.ones(2), torch.zeros(2))
