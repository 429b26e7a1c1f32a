"""A prompt's own tokens in an answer: `echo`, and `prompt_logprobs` as vLLM has them."""

from collections.abc import Iterator
from typing import Any

from adapters_core.tokens.token_texts import TokenTexts
from server.api.json_answer import listed
from server.api.logprobs import shown
from server.generation.detokenizer import Text
from server.generation.text_stream import Place
from server.scheduling.sequence import Sampled, TokenScore, TokenSequence

Json = dict[str, Any]


def wanted_scores(prompt: tuple[int, ...]) -> dict[int, int]:
    """Return position -> the token to score behind it: every token of a prompt but the first."""
    return dict(enumerate(prompt[1:]))


def echoed(sequence: TokenSequence, num_logprobs: int | None) -> Iterator[Sampled]:
    """Yield a prompt's tokens as if they had been chosen; the first one has no log-probability.

    Args:
        sequence: its prompt is computed.
        num_logprobs: alternatives with each token; None for no log-probabilities.
    """
    for number, token in enumerate(sequence.prompt):
        if num_logprobs is None or number == 0:
            yield Sampled(token)
        else:
            score = sequence.scores[number - 1]
            yield Sampled(token, score.logprob, score.alternatives[:num_logprobs])


def prompt_logprobs(text: Text, sequence: TokenSequence, count: int) -> Any:
    """Return a list: for each token of a prompt, token id -> its log-probability, rank and text.

    Each token comes with its `count` likeliest alternatives; the first token has nothing.
    """
    prompt, scores, places = sequence.prompt, sequence.scores, text.places(sequence.prompt)

    def entries(number: int) -> Json | None:
        if number == 0:
            return None
        return _entries(text.tokens, scores[number - 1], prompt[number], places[number], count)

    return listed(len(prompt), entries)


def _entries(texts: TokenTexts, score: TokenScore, token: int, place: Place, count: int) -> Json:
    likeliest = score.alternatives[:count]
    found = {name: (value, rank) for rank, (name, value) in enumerate(likeliest, start=1)} | {
        token: (score.logprob, score.rank)
    }
    return {
        str(name): {"logprob": value, "rank": rank, "decoded_token": shown(texts, name, place)}
        for name, (value, rank) in found.items()
    }
