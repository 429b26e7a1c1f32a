"""Bias, penalties and min_tokens change logits as transformers and vLLM do, for each row alone."""

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
)

from server.engine.adjusted_logits import adjusted
from server.engine.sampler import sample
from server.engine.sampler_device import sample_on_device
from server.scheduling.sequence import Sampling, TokenSequence

SAMPLERS = pytest.mark.parametrize("sampler", [sample, sample_on_device])
VOCABULARY = 1031
TOKENS = st.integers(0, VOCABULARY - 1)
#: Few enough that texts repeat them.
SOME = st.integers(0, 12)

ADJUSTMENTS = st.fixed_dictionaries(
    {},
    optional={
        "logit_bias": st.dictionaries(TOKENS, st.floats(-100, 100), max_size=5),
        "repetition_penalty": st.floats(0.1, 10),
        "frequency_penalty": st.floats(-2, 2),
        "presence_penalty": st.floats(-2, 2),
        "min_tokens": st.integers(0, 8),
    },
)
DRAWS = st.fixed_dictionaries(
    {"temperature": st.sampled_from([0.0, 0.5, 1.0])},
    optional={
        "top_k": st.integers(0, 50),
        "top_p": st.sampled_from([0.3, 0.9]),
        "min_p": st.sampled_from([0.01, 0.3]),
        "typical_p": st.sampled_from([0.2, 0.8]),
        "seed": st.integers(0, 99),
        "num_logprobs": st.integers(0, 4),
    },
)


@st.composite
def sequences(draw: st.DrawFn) -> TokenSequence:
    params = draw(ADJUSTMENTS) | draw(DRAWS)
    sampling = Sampling(max_tokens=99, stop_ids=frozenset({0, 7}), **params)
    prompt = draw(st.lists(SOME, min_size=1, max_size=8))
    sequence = TokenSequence(tuple(prompt), sampling)
    sequence.tokens += draw(st.lists(SOME, max_size=8))
    return sequence


def rows(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(count, VOCABULARY, generator=generator)


def expected(row: Tensor, sequence: TokenSequence) -> Tensor:
    """Return float32 `[V]`: transformers' processors, and vLLM's two penalties by their formula."""
    sampling, answer = sequence.sampling, sequence.tokens[len(sequence.prompt) :]
    before = LogitsProcessorList()
    if sampling.logit_bias:
        bias = {(token,): value for token, value in sampling.logit_bias.items()}
        before.append(SequenceBiasLogitsProcessor(bias))
    before.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    ids = torch.tensor([sequence.tokens])
    scores = before(ids, row.double()[None])[0]
    for token, count in Counter(answer).items():
        scores[token] -= sampling.frequency_penalty * count
        scores[token] -= sampling.presence_penalty
    ends = sorted(sampling.stop_ids)
    after = MinNewTokensLengthLogitsProcessor(len(sequence.prompt), sampling.min_tokens, ends)
    return after(ids, scores[None])[0].float()


@settings(max_examples=80, deadline=None)
@given(many=st.lists(sequences(), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_logits_are_those_of_transformers_and_vllm(many: list[TokenSequence], seed: int) -> None:
    logits = rows(len(many), seed)
    before = logits.clone()
    found, impossible = adjusted(logits, many)
    assert not impossible
    assert torch.equal(logits, before)
    for row, sequence in enumerate(many):
        # Two steps of float32 where a bias meets a penalty: transformers keeps its in float32.
        assert torch.allclose(found[row], expected(logits[row], sequence), rtol=3e-7, atol=1e-5)


@SAMPLERS
@settings(max_examples=40, deadline=None)
@given(many=st.lists(sequences(), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_a_row_gets_alone_what_it_gets_in_any_crowd(
    sampler: Any, many: list[TokenSequence], seed: int
) -> None:
    logits = rows(len(many), seed)
    together = sampler(logits, many)
    alone = [sampler(logits[i : i + 1], [one])[0] for i, one in enumerate(many)]
    assert together == alone
    back = sampler(logits.flip(0), many[::-1])[::-1]
    assert back == together


@SAMPLERS
def test_logprobs_are_of_the_logits_before_temperature(sampler: Any) -> None:
    settings = {"logit_bias": {3: 5.0}, "repetition_penalty": 1.5, "presence_penalty": 1.0}
    sampling = Sampling(
        max_tokens=9,
        temperature=0.3,
        top_k=2,
        num_logprobs=4,
        seed=3,
        **settings,  # type: ignore[arg-type]
    )
    sequence = TokenSequence((3, 5), sampling)
    sequence.tokens += [7, 7]
    row = rows(1)[0]
    true = torch.log_softmax(expected(row, sequence).double(), dim=0)
    (got,) = sampler(row[None], [sequence])
    assert got.logprob == pytest.approx(float(true[got.token]), abs=1e-5)
    assert [token for token, _ in got.alternatives] == true.topk(4).indices.tolist()
    values = [value for _, value in got.alternatives]
    assert values == pytest.approx(true.topk(4).values.tolist(), abs=1e-5)


@SAMPLERS
def test_a_token_that_is_forbidden_is_no_alternative(sampler: Any) -> None:
    sampling = Sampling(9, temperature=0, min_tokens=1, stop_ids=frozenset({2}), num_logprobs=5)
    (got,) = sampler(torch.tensor([[0.0, 1.0, 9.0]]), [TokenSequence((0,), sampling)])
    assert got.token == 1
    assert [token for token, _ in got.alternatives] == [1, 0]


@SAMPLERS
@pytest.mark.parametrize("penalty", [1e-300, 1e-30, 1000.0])
def test_no_penalty_makes_a_row_that_is_not_finite(sampler: Any, penalty: float) -> None:
    row = torch.tensor([1e30, -1e30, 0.0, 1.0])
    sampling = Sampling(9, repetition_penalty=penalty, num_logprobs=4, seed=1)
    found, _ = adjusted(row[None], [TokenSequence((0, 1, 2, 3), sampling)])
    assert torch.isfinite(found).all()
    assert sampler(row[None], [TokenSequence((0, 1, 2, 3), sampling)])[0] is not None


@SAMPLERS
def test_ends_are_forbidden_until_min_tokens_were_generated(sampler: Any) -> None:
    sampling = Sampling(9, temperature=0, min_tokens=2, stop_ids=frozenset({4, 1}))
    sequence = TokenSequence((0,), sampling)
    row = torch.tensor([0.0, 8.0, 3.0, 2.0, 9.0])
    tokens = []
    for _ in range(3):
        (got,) = sampler(row[None], [sequence])
        sequence.tokens.append(got.token)
        tokens.append(got.token)
    assert tokens == [2, 2, 4]
