"""All rows at once on the device choose what the CPU chooses row by row, with one transfer."""

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from server.engine.sampler import sample
from server.engine.sampler_device import sample_on_device
from server.scheduling.sequence import Sampled, Sampling, TokenSequence

VOCABULARY = 50


def sequence(**settings: Any) -> TokenSequence:
    return TokenSequence((1,), Sampling(max_tokens=1, **settings))


def rows(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, VOCABULARY, generator=torch.Generator().manual_seed(seed))


KINDS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.3, 1.0, 1.9, 1e-40]),
        "top_p": st.sampled_from([1.0, 0.9, 0.5, 1e-9]),
        "seed": st.integers(0, 99),
        "num_logprobs": st.sampled_from([None, 0, 1, 5]),
        "logit_bias": st.dictionaries(
            st.integers(0, 49), st.sampled_from([-100.0, 3.0]), max_size=3
        ),
        "top_k": st.sampled_from([0, 1, 7, 50]),
        "min_p": st.sampled_from([0.0, 0.1]),
        "typical_p": st.sampled_from([1.0, 0.6]),
        "repetition_penalty": st.sampled_from([1.0, 1.3]),
        "frequency_penalty": st.sampled_from([0.0, 0.7]),
        "presence_penalty": st.sampled_from([0.0, -0.4]),
    }
)


@settings(max_examples=60, deadline=None)
@given(kinds=st.lists(KINDS, min_size=1, max_size=9), seed=st.integers(0, 99))
def test_the_same_tokens_and_logprobs_as_row_by_row(kinds: list[dict[str, Any]], seed: int) -> None:
    ours, reference = ([sequence(**kind) for kind in kinds] for _ in range(2))
    for step in range(3):
        logits = rows(len(kinds), seed + step)
        before = logits.clone()
        together, alone = sample_on_device(logits, ours), sample(logits, reference)
        for row, (got, true) in enumerate(zip(together, alone, strict=True)):
            assert got is not None
            assert true is not None
            ours[row].tokens.append(true.token)
            reference[row].tokens.append(true.token)
            assert got.token == true.token
            assert got.logprob == pytest.approx(true.logprob, abs=1e-5)
            assert [t for t, _ in got.alternatives] == [t for t, _ in true.alternatives]
            values = [p for _, p in true.alternatives]
            assert [p for _, p in got.alternatives] == pytest.approx(values, abs=1e-5)
        assert torch.equal(logits, before)


def test_frequencies_follow_softmax() -> None:
    row, count = rows(1, seed=3)[0][:12], 4000
    many = [sequence(seed=i, temperature=0.8) for i in range(count)]
    seen = Counter(s.token for s in sample_on_device(row.expand(count, -1), many) if s)
    wanted = torch.softmax(row.double() / 0.8, dim=0) * count
    often = [i for i in range(12) if wanted[i] >= 5]
    got, true = [float(seen[i]) for i in often], [float(wanted[i]) for i in often]
    if len(often) < 12:  # the rare ones together; they are expected now and then
        got, true = [*got, count - sum(got)], [*true, count - sum(true)]
    assert chisquare(got, true).pvalue > 1e-3


def test_a_row_takes_its_token_whoever_stands_beside_it() -> None:
    logits = rows(6)
    alone, batched = sequence(seed=11, top_p=0.8), sequence(seed=11, top_p=0.8)
    others = [sequence(seed=i, top_p=0.7 if i % 2 else 1.0) for i in range(5)]
    mixed = [*others[:2], batched, *others[2:]]
    for _ in range(20):
        got = sample_on_device(logits, mixed)[2]
        assert got is not None
        assert got == sample_on_device(logits[2:3], [alone])[0]
        for each in (alone, batched):
            each.tokens.append(got.token)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_is_not_finite_is_none_and_the_others_stay(bad: float) -> None:
    logits = rows(4)
    healthy = sample_on_device(logits, [sequence(seed=i, num_logprobs=2) for i in range(4)])
    logits[2, 7] = bad
    got = sample_on_device(logits, [sequence(seed=i, num_logprobs=2) for i in range(4)])
    assert got[2] is None
    assert [g for i, g in enumerate(got) if i != 2] == [h for i, h in enumerate(healthy) if i != 2]


def test_half_precision_is_read_as_float32_and_large_tokens_are_exact() -> None:
    logits = torch.zeros(2, 140_001, dtype=torch.bfloat16)
    logits[0, 140_000] = logits[1, 139_999] = 20.0
    got = sample_on_device(logits, [sequence(temperature=0) for _ in range(2)])
    assert got == [Sampled(140_000), Sampled(139_999)]


def test_nobody_to_sample_gives_nothing() -> None:
    assert sample_on_device(torch.zeros(0, VOCABULARY), []) == []


class Reads(TorchDispatchMode):
    """Counts what is asked of tensors."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert "nonzero" not in str(func)
        self.count += "_local_scalar_dense" in str(func)
        return func(*args, **(kwargs or {}))


def test_the_host_reads_one_tensor_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[torch.Size] = []
    tolist = Tensor.tolist

    def counted(tensor: Tensor) -> Any:
        read.append(tensor.shape)
        return tolist(tensor)

    monkeypatch.setattr(Tensor, "tolist", counted)
    kinds: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {"num_logprobs": 3},
        {"top_p": 0.5},
        {"logit_bias": {3: 1.0}},
    ]
    with Reads() as reads:
        sample_on_device(rows(4), [sequence(**kind) for kind in kinds])
    assert len(read) == 1
    assert reads.count == 0
