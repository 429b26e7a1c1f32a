r"""Log-probabilities of an answer's tokens in OpenAI's shapes.

A token's text is what it adds to the answer where it stands. A token that is only a part of a
character is written as OpenAI writes it: by its bytes, `bytes:\xe6\x97` in completions and
`\xe6\x97` in chats.
"""

from collections.abc import Sequence
from typing import Any

from adapters_core.tokens.token_texts import TokenTexts
from server.api.json_answer import listed
from server.generation.text_stream import Place
from server.scheduling.sequence import Sampled

Json = dict[str, Any]

#: Stands for the log-probability of what cannot be chosen; JSON has no infinity.
_LEAST = -9999.0


def completion_logprobs(
    texts: TokenTexts, sampled: Sequence[Sampled], places: Sequence[Place]
) -> Json:
    """Return the `logprobs` of a completion's choice; an echoed prompt's first token has none.

    Args:
        texts: of the tokenizer.
        sampled: its tokens.
        places: where each of them stands.
    """
    placed = zip(sampled, places, strict=True)
    return {
        "tokens": [shown(texts, one.token, place, "bytes:") for one, place in placed],
        "token_logprobs": [_value(one.logprob) for one in sampled],
        "top_logprobs": listed(len(sampled), lambda i: _alternatives(texts, sampled[i], places[i])),
        "text_offset": [place.offset for place in places],
    }


def _alternatives(texts: TokenTexts, sampled: Sampled, place: Place) -> dict[str, float] | None:
    """Return the likeliest tokens by text, and the token itself, last if it is none of them.

    Of several with one text the token itself has it, or else the likeliest; the others have their
    numbers.
    """
    if sampled.logprob is None:
        return None
    own = shown(texts, sampled.token, place, "bytes:")
    values: dict[str, float] = {}
    for token, value in (*sampled.alternatives, (sampled.token, sampled.logprob)):
        text = shown(texts, token, place, "bytes:")
        if token != sampled.token and (text == own or text in values):
            text = f"token_id:{token}"
        values.setdefault(text, max(value, _LEAST))
    return values


def chat_logprobs(texts: TokenTexts, sampled: Sequence[Sampled], places: Sequence[Place]) -> Json:
    """Return the `logprobs` of a chat completion's choice; see `completion_logprobs`."""
    content = listed(len(sampled), lambda i: _entry(texts, sampled[i], places[i]))
    return {"content": content, "refusal": None}


def _entry(texts: TokenTexts, sampled: Sampled, place: Place) -> Json:
    def entry(token: int, value: float | None) -> Json:
        raw, text = texts.bytes_of(token, place.previous), shown(texts, token, place)
        return {"token": text, "logprob": _value(value), "bytes": list(raw)}

    top = [entry(token, value) for token, value in sampled.alternatives]
    return entry(sampled.token, sampled.logprob) | {"top_logprobs": top}


def shown(texts: TokenTexts, token: int, place: Place, prefix: str = "") -> str:
    """Return a token's text at its place; its bytes if it is a part of a character.

    Args:
        texts: of the tokenizer.
        token: of the vocabulary.
        place: where it stands, or would stand.
        prefix: of what is told by its bytes.
    """
    raw = texts.bytes_of(token, place.previous)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return prefix + "".join(f"\\x{byte:02x}" for byte in raw)


def _value(logprob: float | None) -> float | None:
    return None if logprob is None else max(logprob, _LEAST)
