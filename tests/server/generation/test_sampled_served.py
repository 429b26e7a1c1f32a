"""Drawn and penalised answers do not depend on what else runs, nor on being preempted."""

import pytest

import tiny
from server.scheduling.page_pool import PagePool
from server.scheduling.sequence import Sampling, TokenSequence
from server_parts import PAGE_SIZE, Served, prompt_of

SAMPLINGS = [
    Sampling(max_tokens=60, seed=1, repetition_penalty=1.3, top_k=40),
    Sampling(max_tokens=60, seed=2, frequency_penalty=0.7, presence_penalty=0.3, top_p=0.9),
    Sampling(max_tokens=60, temperature=0, frequency_penalty=1.5, repetition_penalty=1.1),
    Sampling(max_tokens=60, seed=4, min_p=0.02, typical_p=0.9, logit_bias={3: 4.0}),
]


@pytest.fixture(scope="module")
def served() -> Served:
    return Served(tiny.model("llama"))


def asked() -> list[TokenSequence]:
    prompts = [prompt_of(40, seed) for seed in range(len(SAMPLINGS))]
    return [TokenSequence(p, one) for p, one in zip(prompts, SAMPLINGS, strict=True)]


def test_sequences_that_lose_their_pages_have_the_tokens_that_they_have_alone(
    served: Served,
) -> None:
    crowd, alone = asked(), asked()
    served.run(crowd, pool=PagePool(9, PAGE_SIZE))
    assert any(one.num_preempted for one in crowd)
    for one in alone:
        served.run([one])
    assert [one.tokens for one in crowd] == [one.tokens for one in alone]
    assert len({tuple(one.tokens) for one in crowd}) == len(crowd)
