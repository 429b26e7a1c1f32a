"""Texts that a classifier or an embedder reads as a whole, as tokens."""

from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import Any


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
