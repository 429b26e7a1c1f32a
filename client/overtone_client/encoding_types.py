"""What an encoder's answers become, and a tokenizer's; as types.py, with the JSON under `raw`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from .types import AnsweredBy, Texts, Usage

#: A text, several texts, token ids, several lists of them.
Inputs: TypeAlias = Texts | Sequence[int] | Sequence[Sequence[int]]


@dataclass(frozen=True)
class Label:
    """What one input was labelled as.

    Args:
        label: the best one.
        score: its own.
        scores: of all labels, in the base's order.
    """

    label: str
    score: float
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Classification:
    """The labels of all inputs, in their order."""

    model: str
    labels: Sequence[Label]
    usage: Usage | None
    answered_by: AnsweredBy | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Embeddings:
    """The vectors of all inputs, in their order."""

    model: str
    vectors: Sequence[Sequence[float]]
    usage: Usage | None
    answered_by: AnsweredBy | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Tokens:
    """The tokens of a text.

    Args:
        ids: of the tokens.
        texts: of each token.
        max_length: tokens that a prompt and its answer may have together.
    """

    ids: Sequence[int]
    texts: Sequence[str]
    max_length: int
    raw: Mapping[str, Any] = field(repr=False, compare=False)
