"""Pairs of texts for cross-encoders: one input of two texts, and the score of its one logit.

A pair's tokens are the tokenizer's own for two texts, with what it puts between them and, where the
base has them, a type for each token that says which text it is of. They are put together here: a
query of many documents is read once, and a tokenizer's own truncation is a state that threads would
share. The score is that of
sentence-transformers' CrossEncoder: the activation that the base's config names, else the sigmoid.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, Self

import torch
from torch import Tensor, nn

from server.encoding.encoder import Input, TypedText
from server.errors import InvalidRequest, PromptTooLong

Ids = tuple[int, ...]
#: Tokens, each with its type.
Typed = tuple[tuple[int, int], ...]

TYPES = "token_type_ids"
#: Names that CrossEncoder writes into a config.
_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "Sigmoid": torch.sigmoid,
    "Identity": lambda logit: logit,
}


class NoPairs(Exception):
    """A base scores no pairs; the message says why."""


@dataclass(frozen=True)
class TextPair:
    """Two texts, and the fields of the request that they are from."""

    first: str
    second: str
    fields: tuple[str, str]


def activation_of(config: Any) -> Callable[[Tensor], Tensor]:
    """Return what makes a score of a cross-encoder's logit.

    Raises:
        NoPairs: the config names another one than those of one logit.
    """
    own = getattr(config, "sentence_transformers", None)
    named = own.get("activation_fn") if isinstance(own, dict) else None
    named = named or getattr(config, "sbert_ce_default_activation_function", None)
    if named is None:
        return torch.sigmoid
    found = _ACTIVATIONS.get(str(named).rpartition(".")[2])
    if found is None:
        raise NoPairs(
            f"its config names the activation {str(named)[:80]!r}; known are "
            + " and ".join(_ACTIVATIONS)
        )
    return found


@dataclass(frozen=True)
class Layout:
    """What a tokenizer puts around and between two texts, with the types of all tokens.

    Args:
        front, middle, back: the tokens there, each with its type.
        types: of the tokens of the first text and of the second.
    """

    front: Typed
    middle: Typed
    back: Typed
    types: tuple[int, int]

    @classmethod
    def of(cls, tokenizer: Any, one: str, other: str) -> Self:
        """Return the layout, as it shows in one pair.

        Raises:
            NoPairs: the two texts' own tokens do not stand in it one after the other.
        """
        first, second = ids_of(tokenizer, one), ids_of(tokenizer, other)
        try:
            whole = tokenizer(one, other, verbose=False)
        except Exception as error:  # whatever a tokenizer raises that reads one text only
            reason = f"{type(error).__name__}: {str(error)[:200]}"
            raise NoPairs(f"its tokenizer does not read two texts at once ({reason})") from error
        ids = tuple(whole["input_ids"])
        typed = tuple(zip(ids, whole.get(TYPES) or (0,) * len(ids), strict=True))
        for start in range(len(ids)):
            after = start + len(first)
            if ids[start:after] != first:
                continue
            for next_ in range(after, len(ids) - len(second) + 1):
                end = next_ + len(second)
                types = {kind for _, kind in typed[start:after]}, {t for _, t in typed[next_:end]}
                if ids[next_:end] == second and len(types[0]) == len(types[1]) == 1:
                    kinds = types[0].pop(), types[1].pop()
                    return cls(typed[:start], typed[after:next_], typed[end:], kinds)
        raise NoPairs("its tokenizer does not put one text behind the other")

    def __len__(self) -> int:
        """Return how many tokens are put around and between."""
        return len(self.front) + len(self.middle) + len(self.back)

    def joined(self, first: Ids, second: Ids) -> TypedText:
        """Return the tokens of a pair."""
        one, other = self.types
        typed = (
            *self.front,
            *((token, one) for token in first),
            *self.middle,
            *((token, other) for token in second),
            *self.back,
        )
        return TypedText(tuple(token for token, _ in typed), tuple(kind for _, kind in typed))


class Pairs:
    """A tokenizer for two texts at once; safe to use from many threads.

    Args:
        tokenizer: transformers'.
        max_length: of a pair in tokens, those that the tokenizer adds included.
        has_types: whether the base reads the types of tokens.
        activation: makes a score of a logit.

    Raises:
        NoPairs: the tokenizer joins texts in a way of its own.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        has_types: bool,
        activation: Callable[[Tensor], Tensor] = torch.sigmoid,
    ) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._layout = Layout.of(tokenizer, "a b", "a")
        self._room = max(0, max_length - len(self._layout))
        self._activation = activation
        self.has_types = has_types
        if Layout.of(tokenizer, "b", "a b a") != self._layout:
            raise NoPairs("its tokenizer joins two texts now so, now otherwise")

    @classmethod
    def of(cls, model: nn.Module, tokenizer: Any, max_length: int) -> Self:
        """Return the pairs of a text classifier.

        Raises:
            NoPairs: its config names an activation that is not computed here, or its tokenizer
                joins texts in a way of its own.
        """
        accepted = signature(model.forward).parameters
        has_types = TYPES in tokenizer.model_input_names and TYPES in accepted
        return cls(tokenizer, max_length, has_types, activation_of(model.config))

    def inputs(self, given: Sequence[TextPair], truncate: bool) -> list[Input]:
        """Return the tokens of pairs.

        Args:
            given: the pairs; a first text that several have is read once.
            truncate: cut a pair that is too long, the longer text first.

        Raises:
            PromptTooLong: a pair has more tokens than the base reads.
        """
        made: list[Input] = []
        text: str | None = None
        for pair in given:
            if pair.first != text:
                text, first = pair.first, ids_of(self._tokenizer, pair.first)
            second = ids_of(self._tokenizer, pair.second)
            if len(first) + len(second) > self._room and not truncate:
                raise self._too_long(pair, len(first), len(second))
            whole = self._layout.joined(*self._cut(first, second))
            made.append(whole if self.has_types else whole.ids)
        return made

    def scores(self, logits: Sequence[Tensor], use_activation: bool = True) -> list[float]:
        """Return the score of each pair; without the activation it is the logit itself.

        Raises:
            InvalidRequest: what answered has another number of labels than one.
        """
        widths = {len(row) for row in logits} - {1}
        if widths:
            raise InvalidRequest(
                f"this model has {max(widths)} labels; a pair's score is that of a cross-encoder, "
                "a classifier with one label. Its labels are at /v1/classify",
                "model",
            )
        activation = self._activation if use_activation else _ACTIVATIONS["Identity"]
        return [float(activation(row.double())[0]) for row in logits]

    def _cut(self, first: Ids, second: Ids) -> tuple[Ids, Ids]:
        one, other = longest_first(len(first), len(second), self._room)
        if self._tokenizer.truncation_side == "left":
            return first[len(first) - one :], second[len(second) - other :]
        return first[:one], second[:other]

    def _too_long(self, pair: TextPair, first: int, second: int) -> PromptTooLong:
        is_first = first >= self._room
        field = pair.fields[0] if is_first else pair.fields[1]
        return PromptTooLong(
            f"{field} has {first if is_first else second} tokens; with its other text's "
            f"{second if is_first else first} and {len(self._layout)} around them at most "
            f"{self._max_length} are read. Shorten it, or send truncate: true",
            field,
        )


def ids_of(tokenizer: Any, text: str) -> Ids:
    """Return a text's tokens without those that the tokenizer adds around it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return tuple(tokenizer.encode(text, add_special_tokens=False, verbose=False))
    return tuple(backend.encode(text, add_special_tokens=False).ids)


def longest_first(one: int, other: int, room: int) -> tuple[int, int]:
    """Return the lengths of two texts that fit together: the longer one is cut first.

    As Hugging Face's tokenizers do it, to the last token.
    """
    if one > other:
        return longest_first(other, one, room)[::-1]
    if one + other <= room:
        return one, other
    if one <= room - one:  # what the shorter one leaves is no less than the shorter one
        return one, room - one
    return room // 2, room - room // 2
