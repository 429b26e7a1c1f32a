"""A prompt's own tokens in an answer: `echo`, and `prompt_logprobs` as vLLM has them."""

from typing import Any

from adapters_core.tokens.token_texts import TokenTexts
from server.api.logprobs import shown
from server.generation.detokenizer import Text
from server.generation.text_stream import Place
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
    scored, places = sequence.sampling.scored, text.places(sequence.prompt)

    def entries(position: int) -> Json:
        score, place = sequence.scores[position], places[position + 1]
        return _entries(text.tokens, score, scored[position], place, count)

    return [None, *map(entries, sorted(scored))]


def _entries(texts: TokenTexts, score: TokenScore, token: int, place: Place, count: int) -> Json:
    likeliest = score.alternatives[:count]
    found = {name: (value, rank) for rank, (name, value) in enumerate(likeliest, start=1)} | {
        token: (score.logprob, score.rank)
    }
    return {
        str(name): {"logprob": value, "rank": rank, "decoded_token": shown(texts, name, place)}
        for name, (value, rank) in found.items()
    }
