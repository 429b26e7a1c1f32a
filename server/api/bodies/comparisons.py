"""Answers of several models to one request."""

from typing import Literal

from typing_extensions import TypedDict

from server.api.bodies.answers import (
    ChatCompletion,
    ChatCompletionChunk,
    Completion,
    CompletionChunk,
)
from server.api.bodies.errors import ErrorBody


class ComparedAnswer(TypedDict):
    """One model's answer.

    Args:
        index: of the model in `models`.
        model: as it was asked for.
        answer: what the model's own request would get; an error's body if it failed.
    """

    index: int
    model: str
    answer: Completion | ChatCompletion | ErrorBody


class Comparison(TypedDict):
    """The answers of all models, in their order."""

    id: str
    object: Literal["comparison"]
    created: int
    data: list[ComparedAnswer]


class ComparedChunk(TypedDict):
    """The next piece of one model's answer.

    Args:
        index: of the model in `models`.
        model: as it was asked for.
        chunk: an event of the model's own stream; an error's body is its last one.
    """

    index: int
    model: str
    chunk: CompletionChunk | ChatCompletionChunk | ErrorBody
