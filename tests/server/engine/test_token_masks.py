"""Constraints in the samplers: only what they allow is chosen, and other rows are as without."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.lib.counting import counted
from server.engine.adjusted_logits import adjusted
from server.engine.sampler import sample
from server.engine.sampler_device import sample_on_device
from server.scheduling.sequence import Sampling, TokenSequence

SAMPLERS = pytest.mark.parametrize("sampler", [sample, sample_on_device])


@dataclass
class Only:
    """Allows some tokens."""

    tokens: set[int]
    fault: Exception | None = None
    entered: list[int] = field(default_factory=list)

    def allowed(self, may_end: bool) -> bytearray | None:
        bits = bytearray(4 * 8)
        for token in self.tokens:
            bits[token >> 3] |= 1 << (token & 7)
        return bits if self.tokens else None

    def advance(self, token: int) -> bool:
        self.entered.append(token)
        return False


def sequence(tokens: set[int] | None = None, **settings: Any) -> TokenSequence:
    constraint = None if tokens is None else Only(tokens)
    return TokenSequence((1,), Sampling(max_tokens=1, **settings), constraint=constraint)


def rows(count: int, width: int = 77) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(3))


@SAMPLERS
@pytest.mark.parametrize("width", [33, 64, 77, 250])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_only_allowed_tokens_are_chosen(sampler: Any, width: int, temperature: float) -> None:
    allowed = [{0}, {5, 32}, {31, width - 1}, set(range(width))]
    for seed in range(20):
        settings = {"temperature": temperature, "seed": seed, "top_p": 0.9}
        logits = rows(4, width)
        before = logits.clone()
        chosen = sampler(logits, [sequence(tokens, **settings) for tokens in allowed])
        assert all(one.token in tokens for one, tokens in zip(chosen, allowed, strict=True))
        assert torch.equal(logits, before)


@SAMPLERS
def test_other_rows_are_as_without(sampler: Any) -> None:
    logits, settings = rows(5), {"seed": 4, "num_logprobs": 3}
    alone = sampler(logits, [sequence(**settings) for _ in range(5)])
    beside = sampler(logits, [sequence({7} if i % 2 else None, **settings) for i in range(5)])
    assert alone[::2] == beside[::2]
    assert [one.token for one in beside[1::2]] == [7, 7]


@SAMPLERS
def test_logprobs_are_those_of_what_is_allowed(sampler: Any) -> None:
    """And no more alternatives are reported than there are: minus infinity is no JSON."""
    logits = rows(1)
    (one,) = sampler(logits, [sequence({2, 9}, num_logprobs=5)])
    wanted = torch.log_softmax(logits[0, [2, 9]], dim=0)
    assert {token for token, _ in one.alternatives} == {2, 9}
    for token, value in [(one.token, one.logprob), *one.alternatives]:
        assert value == pytest.approx(float(wanted[[2, 9].index(token)]), abs=1e-5)
        assert math.isfinite(value)


@SAMPLERS
def test_a_row_that_nothing_may_follow_has_no_token_and_leaves_others_alone(sampler: Any) -> None:
    logits = rows(3)
    chosen = sampler(logits, [sequence(temperature=0), sequence(set()), sequence({4})])
    assert chosen[0].token == int(logits[0].argmax())
    assert chosen[1] is None
    assert chosen[2].token == 4


@SAMPLERS
def test_the_same_random_numbers_are_drawn_with_a_constraint(sampler: Any) -> None:
    free, bound = sequence(seed=3), sequence(set(range(77)), seed=3)
    for _ in range(5):
        logits = rows(1)
        assert sampler(logits, [free])[0].token == sampler(logits, [bound])[0].token


def test_no_setting_of_a_sequence_makes_the_host_wait_for_a_gpu() -> None:
    settings = {"logit_bias": {3: 2.0}, "stop_ids": frozenset({5}), "repetition_penalty": 1.5}
    short = TokenSequence((1,), Sampling(max_tokens=9, min_tokens=4, **settings))
    with counted() as tally:
        adjusted(torch.zeros(2, 256, device="meta"), [short, sequence({1, 2})])
    assert tally.cost.uploads >= 4  # of biases, penalties, ends and masks
    assert tally.cost.waits == 0
