"""Tokens from logits: the right distribution, each row alone."""

from collections import Counter
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from server.engine.sampler import sample
from server.scheduling.sequence import Sampled, Sampling, TokenSequence

VOCABULARY = 50


def sequence(**settings: Any) -> TokenSequence:
    return TokenSequence((1,), Sampling(max_tokens=1, **settings))


def rows(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def one(row: torch.Tensor, sequence: TokenSequence) -> Sampled:
    (got,) = sample(row[None], [sequence])
    assert got is not None
    return got


def draws(row: torch.Tensor, count: int, **settings: Any) -> list[int]:
    """Return as many tokens as one sequence draws from one row."""
    drawing = sequence(**{"seed": 5, **settings})
    for _ in range(count):
        drawing.tokens.append(one(row, drawing).token)
    return drawing.tokens[1:]


def test_temperature_zero_takes_the_likeliest() -> None:
    logits = rows(8)
    got = sample(logits, [sequence(temperature=0) for _ in range(8)])
    assert [s and s.token for s in got] == logits.argmax(dim=1).tolist()
    assert {s and s.logprob for s in got} == {None}


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.9])
def test_frequencies_follow_softmax(temperature: float) -> None:
    row, count = rows(1, seed=3)[0][:12], 4000
    wanted = torch.softmax(row.double() / temperature, dim=0) * count
    seen = Counter(draws(row, count, temperature=temperature))
    often = [i for i in range(12) if wanted[i] >= 5]
    rest = [i for i in range(12) if i not in often]
    got = [seen[i] for i in often] + [sum(seen[i] for i in rest)]
    expected = [float(wanted[i]) for i in often] + [float(wanted[rest].sum())]
    if not rest:
        got, expected = got[:-1], expected[:-1]
    assert chisquare(got, expected, sum_check=False).pvalue > 1e-3


@pytest.mark.parametrize("top_p", [1e-9, 0.2, 0.5, 0.9])
def test_top_p_draws_from_the_smallest_set_that_reaches_it(top_p: float) -> None:
    row = rows(1, seed=4)[0]
    probabilities, order = torch.softmax(row.double(), 0).sort(descending=True)
    size = int((probabilities.cumsum(0) < top_p).sum()) + 1
    nucleus, count = order[:size].tolist(), 3000
    seen = Counter(draws(row, count, top_p=top_p))
    assert set(seen) <= set(nucleus)
    wanted = probabilities[:size] / probabilities[:size].sum() * count
    likely = [i for i in range(size) if wanted[i] > 10]
    assert all(seen[nucleus[i]] > 0 for i in likely)
    got = [seen[token] for token in nucleus]
    if size > 1:
        assert chisquare(got, wanted.tolist(), sum_check=False).pvalue > 1e-3


def test_a_tiny_temperature_is_greedy() -> None:
    """Division by it must not overflow to infinity, and infinity to NaN."""
    row = rows(1)[0] + 30
    for temperature in (1e-3, 1e-40, 5e-324):
        assert set(draws(row, 5, temperature=temperature)) == {int(row.argmax())}


def test_one_seed_gives_one_sequence_of_tokens_whatever_else_is_in_the_batch() -> None:
    logits = rows(6)
    alone, batched = sequence(seed=11), sequence(seed=11)
    others = [sequence(seed=i, top_p=0.7) for i in range(5)]
    mixed = [*others[:2], batched, *others[2:]]
    for _ in range(20):
        got = sample(logits, mixed)[2]
        assert got is not None
        assert got.token == one(logits[2], alone).token
        for each in (alone, batched):
            each.tokens.append(got.token)
    assert draws(logits[0], 30) == draws(logits[0], 30)
    assert draws(logits[0], 30, seed=12) != draws(logits[0], 30)


def test_a_step_that_is_repeated_draws_the_same_token() -> None:
    row, drawing = rows(1)[0], sequence(seed=11)
    first = one(row, drawing)
    assert [one(row, drawing) for _ in range(5)] == [first] * 5
    drawing.tokens.append(first.token)
    assert {one(row, drawing).token for _ in range(5)} != {first.token}


def test_logit_bias_is_added_before_anything_else() -> None:
    logits = rows(2)
    last = int(logits[0].argmin())
    banned = int(logits[1].argmax())
    greedy = [
        sequence(temperature=0, logit_bias={last: 100.0}, num_logprobs=1),
        sequence(temperature=0, logit_bias={banned: -100.0}),
    ]
    before = logits.clone()
    first, second = sample(logits, greedy)
    assert first is not None
    assert second is not None
    assert first.token == last
    assert first.logprob == pytest.approx(0.0, abs=1e-6)
    assert second.token == int(logits[1].topk(2).indices[1])
    assert torch.equal(logits, before)
    assert banned not in draws(logits[1], 200, logit_bias={banned: -100.0})


def test_logprobs_are_log_softmax_with_the_likeliest_first() -> None:
    row = rows(1, seed=8)[0]
    true = torch.log_softmax(row.double(), dim=0)
    got = one(row, sequence(seed=2, temperature=0.8, num_logprobs=5))
    assert got.logprob == pytest.approx(float(true[got.token]), abs=1e-5)
    tokens = [token for token, _ in got.alternatives]
    assert tokens == row.topk(5).indices.tolist()
    assert [p for _, p in got.alternatives] == pytest.approx(true[tokens].tolist(), abs=1e-5)


def test_no_alternatives_still_give_the_tokens_own_logprob() -> None:
    got = one(rows(1)[0], sequence(temperature=0, num_logprobs=0))
    assert got.logprob is not None
    assert got.alternatives == ()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_is_not_finite_is_none_and_the_others_stay(bad: float) -> None:
    logits = rows(4)
    healthy = sample(logits, [sequence(seed=i) for i in range(4)])
    logits[2, 7] = bad
    got = sample(logits, [sequence(seed=i) for i in range(4)])
    assert got[2] is None
    assert [g for i, g in enumerate(got) if i != 2] == [h for i, h in enumerate(healthy) if i != 2]


def test_half_precision_logits_are_read_as_float32() -> None:
    logits = rows(1).to(torch.bfloat16)
    got = one(logits[0], sequence(temperature=0, num_logprobs=2))
    true = torch.log_softmax(logits[0].double(), dim=0)
    assert got.logprob == pytest.approx(float(true.max()), abs=1e-5)
