"""Draws follow transformers' warpers, in their order, on a CPU and on a device alike.

The random number is set: as many as there are points of a grid show each token's exact share.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from server.engine.sampler import sample
from server.engine.sampler_device import sample_on_device
from server.scheduling.sequence import Sampled, Sampling, TokenSequence

Sampler = Callable[[Tensor, list[TokenSequence]], list[Sampled | None]]
SAMPLERS = pytest.mark.parametrize("sampler", [sample, sample_on_device])

#: Points of the grid: a token's number of points is within one of its share of them.
POINTS = 500


@dataclass(eq=False)
class At(TokenSequence):
    """A sequence whose next random number is given."""

    point: float = 0.0

    def random_number(self) -> float:
        return self.point


def drawn(sampler: Sampler, row: Tensor, points: Sequence[float], **params: Any) -> list[int]:
    """Return the token of each random number."""
    sampling = Sampling(max_tokens=1, **params)
    sequences: list[TokenSequence] = [At((1,), sampling, point=point) for point in points]
    found = sampler(row.expand(len(points), -1), sequences)
    return [one.token for one in found if one is not None]


def warped(row: Tensor, params: dict[str, Any]) -> Tensor:
    """Return transformers' probabilities, float64 `[V]`."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(params.get("temperature", 1.0))])
    if 0 < params.get("top_k", 0) < len(row):
        warpers.append(TopKLogitsWarper(params["top_k"]))
    if params.get("top_p", 1.0) < 1:
        warpers.append(TopPLogitsWarper(params["top_p"]))
    if params.get("min_p", 0.0) > 0:
        warpers.append(MinPLogitsWarper(params["min_p"]))
    if params.get("typical_p", 1.0) < 1:
        warpers.append(TypicalLogitsWarper(params["typical_p"]))
    scores = warpers(torch.ones(1, 1, dtype=torch.int64), row.double()[None])
    return torch.softmax(scores[0], dim=0)


def check_shares(sampler: Sampler, row: Tensor, params: dict[str, Any]) -> None:
    points = [(i + 0.5) / POINTS for i in range(POINTS)]
    numbers = Counter(drawn(sampler, row, points, **params))
    for token, share in enumerate(warped(row, params).tolist()):
        assert abs(numbers[token] - share * POINTS) <= (1 if share else 0)


PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.2, 0.7, 1.3, 2.0]),
        "top_k": st.sampled_from([1, 2, 5, 20, 39, 40, 1000]),
        "top_p": st.sampled_from([1e-9, 0.1, 0.5, 0.9, 0.999]),
        "min_p": st.sampled_from([1e-6, 0.01, 0.1, 0.5, 1.0]),
        "typical_p": st.sampled_from([0.05, 0.2, 0.5, 0.9, 0.999]),
    },
)


@SAMPLERS
@settings(max_examples=60, deadline=None)
@given(params=PARAMS, seed=st.integers(0, 999), scale=st.sampled_from([0.01, 1.0, 5.0]))
def test_every_token_has_the_share_that_transformers_gives_it(
    sampler: Sampler, params: dict[str, Any], seed: int, scale: float
) -> None:
    row = scale * torch.randn(40, generator=torch.Generator().manual_seed(seed))
    check_shares(sampler, row, params)


@SAMPLERS
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"top_k": 3},
        {"top_k": 700},
        {"top_p": 0.6},
        {"min_p": 0.02, "temperature": 1.5},
        {"typical_p": 0.3},
        {"top_k": 100, "top_p": 0.9, "min_p": 0.01, "typical_p": 0.8},
    ],
)
def test_the_same_holds_over_more_tokens_than_a_block(
    sampler: Sampler, params: dict[str, Any]
) -> None:
    row = 3 * torch.randn(1500, generator=torch.Generator().manual_seed(7))
    check_shares(sampler, row, params)


TIED = {
    "top_k": (3, [0, 2, 3]),
    "top_p": (0.45, [0, 2]),  # 0.3 and 0.2, of which the fewest that reach it are kept
    "typical_p": (0.25, [2, 3]),
}


@SAMPLERS
@pytest.mark.parametrize("name", TIED)
def test_of_equal_tokens_those_with_lower_ids_are_kept(sampler: Sampler, name: str) -> None:
    """bfloat16 logits are often equal: top_k: 1 must still be one token."""
    row = torch.tensor([0.3, 0.05, 0.2, 0.2, 0.2, 0.05]).log()
    value, kept = TIED[name]
    points = [(i + 0.5) / 200 for i in range(200)]
    assert set(drawn(sampler, row, points, **{name: value})) == set(kept)
    assert set(drawn(sampler, torch.zeros(50), points, top_k=1)) == {0}


@SAMPLERS
@pytest.mark.parametrize("params", [{}, {"top_p": 0.999}, {"top_k": 3}, {"typical_p": 0.99}])
def test_the_ends_of_the_random_numbers_take_tokens_that_may_be_drawn(
    sampler: Sampler, params: dict[str, Any]
) -> None:
    """The first and the last token are forbidden, as if by infinitely strong settings."""
    row = torch.tensor([-torch.inf, 1.0, 2.0, 0.5, -torch.inf])
    sampling = Sampling(max_tokens=1, stop_ids=frozenset({0, 4}), min_tokens=1, **params)
    for width in (1, 100_000):  # a row's end in the first block of weights, and far behind it
        wide = torch.cat([row[:4], torch.full((width,), -200.0)])
        ends: list[TokenSequence] = [At((1,), sampling, point=p) for p in (0.0, 1 - 2.0**-53)]
        wide[0], wide[4] = 9.0, 9.0
        found = [one.token for one in sampler(wide.expand(2, -1), ends) if one is not None]
        assert found[0] == 1
        assert found[1] not in (0, 4)


@SAMPLERS
def test_zero_is_one_number_whatever_its_sign(sampler: Sampler) -> None:
    row = torch.tensor([-0.0, 0.0, -0.0, 0.0])
    points = [(i + 0.5) / 40 for i in range(40)]
    assert set(drawn(sampler, row, points, top_k=2)) == {0, 1}
