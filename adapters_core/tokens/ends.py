"""Tokens that end an answer."""

from collections.abc import Sequence
from typing import Any

from adapters_core.tokens.messages import Message
from adapters_core.tokens.prompts import ChatRefused, chat_text

#: No template writes it of its own.
_ANSWER = "overtone-answer"
#: Chats that show how a template ends an answer; some refuse one of them.
_CHATS: tuple[list[Message], ...] = (
    [{"role": "user", "content": "question"}, {"role": "assistant", "content": _ANSWER}],
    [
        {"role": "system", "content": "rule"},
        {"role": "user", "content": "question"},
        {"role": "assistant", "content": _ANSWER},
    ],
)


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end every answer of a base.

    Args:
        model: a causal LM; its generation config names one or several.
        tokenizer: has another one, perhaps.
    """
    generation = getattr(model, "generation_config", None)
    given = getattr(generation, "eos_token_id", None)
    ids: Sequence[int | None] = given if isinstance(given, list) else [given]
    return frozenset(i for i in [*ids, tokenizer.eos_token_id] if i is not None)


def turn_end(tokenizer: Any) -> int | None:
    """Return the token with which the base's chat template ends an answer.

    None where it has no template, or ends an answer with plain text only.
    """
    if not tokenizer.chat_template:
        return None
    for messages in _CHATS:
        try:
            text = chat_text(tokenizer, messages, ending="ends")
        except ChatRefused:
            continue
        _, found, tail = text.rpartition(_ANSWER)
        return _first_added(tokenizer, tail.lstrip()) if found else None
    return None


def _first_added(tokenizer: Any, tail: str) -> int | None:
    """Return the added token with which a text begins, the longest of several."""
    added: dict[str, int] = tokenizer.get_added_vocab()
    begun = max((text for text in added if tail.startswith(text)), key=len, default=None)
    return None if begun is None else added[begun]
