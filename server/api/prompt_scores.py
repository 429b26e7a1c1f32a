"""A prompt's own tokens in an answer: `echo`, and `prompt_logprobs` as vLLM has them."""

from collections.abc import Mapping
from typing import Any

from server.generation.detokenizer import Text
from server.scheduling.sequence import Sampled, TokenScore, TokenSequence

Json = dict[str, Any]


def wanted_scores(prompt: tuple[int, ...]) -> dict[int, int]:
    """Return position -> the token to score behind it: every token of a prompt but the first."""
    return dict(enumerate(prompt[1:]))


def echoed(sequence: TokenSequence, num_logprobs: int | None) -> tuple[Sampled, ...]:
    """Return a prompt's tokens as if they had been chosen; the first one has no log-probability.

    Args:
        sequence: its prompt is computed.
        num_logprobs: alternatives with each token; None for no log-probabilities.
    """
    first, *others = sequence.prompt
    if num_logprobs is None:
        return tuple(Sampled(token) for token in sequence.prompt)
    scores = (sequence.scores[position] for position in range(len(others)))
    rest = (
        Sampled(token, score.logprob, score.alternatives[:num_logprobs])
        for token, score in zip(others, scores, strict=True)
    )
    return Sampled(first), *rest


def prompt_logprobs(text: Text, sequence: TokenSequence, count: int) -> list[Json | None]:
    """Return, for each token of a prompt, token id -> its log-probability, rank and text.

    Each token comes with its `count` likeliest alternatives; the first token has nothing.
    """
    scored = sequence.sampling.scored
    return [None, *(_entries(text, sequence.scores, i, scored[i], count) for i in sorted(scored))]


def _entries(
    text: Text, scores: Mapping[int, TokenScore], position: int, token: int, count: int
) -> Json:
    score = scores[position]
    likeliest = score.alternatives[:count]
    found = {name: (value, rank) for rank, (name, value) in enumerate(likeliest, start=1)} | {
        token: (score.logprob, score.rank)
    }
    return {
        str(name): {"logprob": value, "rank": rank, "decoded_token": text.token(name)}
        for name, (value, rank) in found.items()
    }
