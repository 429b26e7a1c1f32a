"""Log-probabilities of an answer's tokens in OpenAI's shapes."""

from collections.abc import Sequence
from typing import Any

from server.generation.detokenizer import Text
from server.scheduling.sequence import Sampled

Json = dict[str, Any]


def completion_logprobs(text: Text, sampled: Sequence[Sampled]) -> Json:
    """Return the `logprobs` of a completion's choice; an echoed prompt's first token has none."""
    tokens = [text.token(s.token) for s in sampled]
    starts = [sum(map(len, tokens[:i])) for i in range(len(tokens))]
    return {
        "tokens": tokens,
        "token_logprobs": [s.logprob for s in sampled],
        "top_logprobs": [None if s.logprob is None else _alternatives(text, s) for s in sampled],
        "text_offset": starts,
    }


def _alternatives(text: Text, sampled: Sampled) -> dict[str, float]:
    """Return the alternatives by text; of several with one text the likeliest holds."""
    values: dict[str, float] = {}
    for token, value in sampled.alternatives:
        values.setdefault(text.token(token), value)
    return values


def chat_logprobs(text: Text, sampled: Sequence[Sampled]) -> Json:
    """Return the `logprobs` of a chat completion's choice."""

    def entry(token: int, value: float | None) -> Json:
        own = text.token(token)
        return {"token": own, "logprob": value, "bytes": _bytes(own)}

    return {
        "content": [
            entry(s.token, s.logprob)
            | {"top_logprobs": [entry(token, value) for token, value in s.alternatives]}
            for s in sampled
        ],
        "refusal": None,
    }


def _bytes(text: str) -> list[int] | None:
    """Return the text's bytes; None for a token that is only a part of a character."""
    return None if "\ufffd" in text else list(text.encode())
