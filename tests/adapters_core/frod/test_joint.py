"""The joint decomposition and the positions of S against PEFT's own code, bit for bit."""

import pytest
import torch
from peft.tuners.frod.model import (
    _category_from_key,
    _layer_index_from_key,
    _projection_from_weights,
)

from adapters_core.contract.layer import Shape
from adapters_core.errors import InvalidAdapter
from adapters_core.frod.factors import TOLERANCE, Factoriser
from adapters_core.frod.joint import category_of, joint_basis, members_of
from adapters_core.frod.off_diagonal import num_positions, num_words, seeded_positions
from adapters_core.methods import FRoD
from adapters_core.positions.seeded import LARGE, flat_positions
from made import TOY_PATH, toy_bases
from tiny_bases import relative

PATHS = [
    "classifier",
    "transformer.h.11.attn.c_attn",
    "encoder.layer.3.attention.self.query",
    "encoder.layer.3.attention.output.dense",
    "encoder.layer.3.output.dense",
    "model.layers.10.mlp.down_proj",
    "model.layers.10.mlp.experts.4.up_proj",
    "vision.blocks.2.layers.7.fc1",
    "head.dense",
]


def test_categories_and_their_order_are_pefts() -> None:
    assert [category_of(path) for path in PATHS] == [_category_from_key(path) for path in PATHS]
    shapes = dict.fromkeys(
        (f"{a}.layers.{i}.mlp.up" for a, i in [("b", 10), ("b", 9), ("b", 2), ("c", 9)]),
        Shape(4, 4),
    )
    shapes |= dict.fromkeys(["x.mlp.up", "b.layers.1.mlp.down"], Shape(4, 4))
    theirs = {_layer_index_from_key(p, n): p for n, p in enumerate(shapes) if p.endswith("up")}
    assert members_of("mlp_up", shapes) == [theirs[index] for index in sorted(theirs)]
    assert len(theirs) == 4  # b.layers.9 gave way to c.layers.9


@pytest.mark.parametrize(
    ("num_layers", "out", "in_"),
    [
        (2, 96, 96),
        (5, 96, 96),
        (3, 45, 77),
        (2, 180, 60),
        (2, 16, 96),
        (1, 53, 31),
        (2, 70, 1),
        (2, 1, 70),
    ],
)
def test_the_basis_has_the_bits_of_pefts_and_gives_back_the_weights(
    num_layers: int, out: int, in_: int
) -> None:
    generator = torch.Generator().manual_seed(out)
    weights = [torch.randn(out, in_, generator=generator) for _ in range(num_layers)]
    v = joint_basis(weights)
    assert torch.equal(v, _projection_from_weights(weights, 1e-3))
    for weight in weights:
        made = Factoriser(v).factors(weight)
        assert relative(made.u.double() * made.lambda0.double() @ v.double().T, weight) < 1e-6
        lengths = made.u.norm(dim=0)
        assert torch.allclose(lengths, torch.ones(in_)) or (lengths.round() == lengths).all()


def test_the_basis_has_the_same_bits_on_any_number_of_threads() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(180, 180, generator=generator) for _ in range(2)]
    one = joint_basis(weights)
    torch.set_num_threads(2)  # the module's fixture puts it back
    try:
        assert torch.equal(joint_basis(weights), one)
        assert torch.get_num_threads() == 2
        assert not torch.equal(_projection_from_weights(weights, 1e-3), one)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("rate", [0.0, 1e-4, 0.01, 0.37, 1.0])
@pytest.mark.parametrize("seed", [0, 7, 2**32 + 7, 2**63 + 1, -1])
def test_positions_are_pefts_in_every_category(seed: int, rate: float) -> None:
    generator, skip = torch.Generator().manual_seed(seed), 0
    for width in (1, 2, 96, 31, 200, 1, 53):
        rows, cols = (side.flatten() for side in torch.ones(width, width).nonzero().T)
        cells = torch.stack([rows, cols])[:, rows != cols]
        n = num_positions(width, rate)
        assert n == (
            0
            if rate == 0
            else max(min(1, cells.shape[1]), min(int(width * width * rate), cells.shape[1]))
        )
        drawn = torch.randperm(cells.shape[1], generator=generator)[:n] if n else []
        assert torch.equal(seeded_positions(seed, skip, n, width), cells[:, drawn])
        skip += num_words(width, rate)


@pytest.mark.parametrize(("factor", "good"), [(1e-3, True), (1e-7, False), (0.0, False)])
def test_a_v_with_two_columns_almost_alike_is_refused_where_it_fails(
    factor: float, good: bool
) -> None:
    """U diag(lambda) V^T decides, not the condition of V."""
    weight = torch.randn(60, 48, generator=torch.Generator().manual_seed(0))
    v = joint_basis([weight]).double()
    v[:, 0] = v[:, 1] + factor * v[:, 0]
    if not good:
        with pytest.raises(InvalidAdapter, match="singular"):
            Factoriser(v).factors(weight)
        return
    made = Factoriser(v).factors(weight)
    again = made.u.double() * made.lambda0.double() @ v.T
    assert relative(again, weight) <= TOLERANCE


def test_a_weight_that_is_not_finite_has_no_basis() -> None:
    weight = torch.ones(4, 4)
    weight[1, 1] = torch.nan
    with pytest.raises(InvalidAdapter, match="basis"):
        joint_basis([weight])


def test_too_many_positions_to_draw_are_refused() -> None:
    with pytest.raises(InvalidAdapter, match="16000 wide"):
        FRoD(sparse_rate=1e-9).of_layers({TOY_PATH: Shape(8, 16000)})


def test_words_are_not_skipped_where_torch_draws_in_another_way() -> None:
    with pytest.raises(ValueError, match="skip = 1"):
        flat_positions(0, 1, LARGE, skip=1)


def test_what_is_held_is_made_once_while_anybody_has_it() -> None:
    weights = toy_bases({TOY_PATH: Shape(4, 4)})._weights
    assert weights is not None
    made = []

    def make() -> torch.Tensor:
        made.append(torch.ones(2))
        return made[-1]

    first = weights.held("a", make)
    assert weights.held("a", make) is first
    assert weights.held("b", make) is not first
    made.clear()
    del first
    assert weights.held("a", make) is made[0]
