"""LoRA against the paper's double sum."""

import math

import pytest
import torch

from adapters_core.contract.method import Shape
from adapters_core.errors import InvalidAdapter
from adapters_core.methods import LoRA
from tiny_bases import random_layer, relative


@pytest.mark.parametrize(
    ("method", "scale"),
    [
        (LoRA(r=2, alpha=8.0), 4.0),
        (LoRA(r=3, alpha=1.0), 1 / 3),
        (LoRA(r=2, alpha=8.0, rslora=True), 8 / math.sqrt(2)),
    ],
)
def test_delta_is_the_papers_product(method: LoRA, scale: float) -> None:
    shape = Shape(4, 6)
    layer = random_layer(method, shape)
    down, up = layer["lora_A.weight"].tolist(), layer["lora_B.weight"].tolist()
    true = torch.zeros(4, 6, dtype=torch.float64)
    for p in range(4):
        for q in range(6):
            for r in range(method.r):
                true[p, q] += scale * up[p][r] * down[r][q]
    assert relative(method.delta(layer, shape, None), true) < 1e-6
    cells = torch.arange(24)
    exact = method.cells(layer, shape, cells // 6, cells % 6).view(4, 6)
    assert relative(exact, true) < 1e-14


def test_a_is_drawn_within_pefts_bound() -> None:
    fresh = LoRA(r=16).init(Shape(5, 64), torch.Generator().manual_seed(0))
    reference = torch.empty(16, 64)
    torch.nn.init.kaiming_uniform_(
        reference, a=math.sqrt(5), generator=torch.Generator().manual_seed(0)
    )
    assert torch.allclose(fresh["lora_A.weight"], reference, rtol=1e-6)
    assert not fresh["lora_B.weight"].any()


@pytest.mark.parametrize("zero", ["lora_A.weight", "lora_B.weight"])
def test_either_factor_zero_is_no_update(zero: str) -> None:
    layer = random_layer(LoRA(r=2), Shape(4, 6))
    assert not LoRA(r=2).is_zero(layer)
    assert LoRA(r=2).is_zero(layer | {zero: torch.zeros_like(layer[zero])})


@pytest.mark.parametrize(
    ("options", "param"),
    [({"r": 0}, "r"), ({"r": -1}, "r"), ({"alpha": math.nan}, "lora_alpha")],
)
def test_impossible_hyper_parameters_are_named(options: dict[str, float], param: str) -> None:
    with pytest.raises(InvalidAdapter) as caught:
        LoRA(**options)
    assert caught.value.param == param


def test_ranks_have_banks_of_their_own_and_scales_share_one() -> None:
    shape = Shape(4, 6)
    assert LoRA(r=2).signature(shape) != LoRA(r=3).signature(shape)
    assert LoRA(r=2, alpha=1.0).signature(shape) == LoRA(r=2, rslora=True).signature(shape)
