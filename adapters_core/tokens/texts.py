"""Texts that a classifier or an embedder reads as a whole, as tokens; how long tokens are."""

from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import Any

#: Characters of a text for which one token stands at most, where nothing bounds them: tokenizers
#: drop blanks and accents, and have one token for a word that they do not know. No text of words
#: has as many on average.
_UNBOUNDED_CHARS = 512


def most_chars(tokenizer: Any) -> int:
    """Return for how many characters of a text one token stands at most."""
    longest = max(map(len, tokenizer.get_vocab()), default=1)
    return longest if _drops_nothing(tokenizer) else max(longest, _UNBOUNDED_CHARS)


def _drops_nothing(tokenizer: Any) -> bool:
    """Return whether each token is as long as what it stands for, or longer.

    Byte-level tokenizers are so, unless a part of theirs drops or takes in characters.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.normalizer is not None:
        return False
    if type(backend.decoder).__name__ != "ByteLevel":
        return False
    before = backend.pre_tokenizer
    added = backend.get_added_tokens_decoder().values()
    takes_blanks = any(token.lstrip or token.rstrip for token in added)
    return not takes_blanks and b"Removed" not in (before.__getstate__() if before else b"")


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Return all tokens of a text, however many, with those that the tokenizer adds around it."""
    # The tokenizer's own truncation is a state that threads would share.
    return list(tokenizer(text, verbose=False)["input_ids"])


def cut(tokenizer: Any, ids: Sequence[int], max_length: int) -> list[int]:
    """Return at most `max_length` tokens of a text.

    The special tokens at both ends are kept; the others go at the end, or at the beginning if the
    tokenizer's `truncation_side` is left.
    """
    num_over = len(ids) - max_length
    if num_over <= 0:
        return list(ids)
    special = frozenset(tokenizer.all_special_ids)
    first = _num_special(ids, special)
    last = len(ids) - _num_special(ids[::-1], special)
    if last - first < num_over:  # hardly anything but special tokens
        return list(ids[:max_length])
    if tokenizer.truncation_side == "left":
        return [*ids[:first], *ids[first + num_over :]]
    return [*ids[: last - num_over], *ids[last:]]


def _num_special(ids: Sequence[int], special: Collection[int]) -> int:
    """Return how many special tokens stand before the first other one."""
    return sum(1 for _ in takewhile(special.__contains__, ids))
