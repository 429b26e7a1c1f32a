"""Comparisons: the request, and its answers as values of types.py."""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx2

from ._requests import Call, body_of
from ._responses import (
    Json,
    api_error,
    to_chat,
    to_chat_chunk,
    to_completion,
    to_completion_chunk,
    understood,
)
from .errors import InvalidArgument
from .types import ComparedAnswer, ComparedChunk, Comparison, Messages, Prompt


def compare(
    models: Sequence[str],
    prompt: Prompt | None,
    messages: Messages | None,
    params: Mapping[str, Any],
) -> Call:
    """One prompt or conversation for several models. `params` that are None are left out."""
    if (prompt is None) == (messages is None):
        raise InvalidArgument("give either a prompt or messages")
    asked = {"prompt": prompt} if messages is None else {"messages": list(messages)}
    return Call("POST", "/v1/compare", json=body_of(params, models=list(models), **asked))


def parse_comparison(response: httpx2.Response) -> Comparison:
    """The answers of all models."""
    return understood(str(response.url), _to_comparison, response.json)


def to_compared_chunk(body: Json) -> ComparedChunk:
    """One event of a streamed comparison."""
    chunk = body["chunk"]
    index, model = int(body["index"]), str(body["model"])
    if "error" in chunk:
        return ComparedChunk(index, model, None, api_error(chunk, None, {}))
    build = to_chat_chunk if chunk["object"] == "chat.completion.chunk" else to_completion_chunk
    return ComparedChunk(index, model, build(chunk), None)


def _to_comparison(body: Json) -> Comparison:
    answers = tuple(map(_to_compared, body["data"]))
    return Comparison(str(body["id"]), body.get("created"), answers, body)


def _to_compared(body: Json) -> ComparedAnswer:
    answer = body["answer"]
    index, model = int(body["index"]), str(body["model"])
    if "error" in answer:
        return ComparedAnswer(index, model, None, api_error(answer, None, {}))
    build = to_chat if answer["object"] == "chat.completion" else to_completion
    return ComparedAnswer(index, model, build(answer), None)
