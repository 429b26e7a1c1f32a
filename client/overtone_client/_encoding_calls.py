"""Requests to an encoder and to a tokenizer, and the parsers of their answers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import httpx2

from ._requests import Call
from ._requests import _present as present
from ._responses import Json, about, understood
from .encoding_types import Classification, Embeddings, Inputs, Label, Tokens
from .errors import InvalidArgument, InvalidResponse
from .types import Messages

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


def classify(model: str, inputs: Inputs, truncate: bool | None) -> Call:
    """A label for each input."""
    return _asked("/v1/classify", model, inputs, {"truncate": truncate})


def embed(model: str, inputs: Inputs, params: Mapping[str, Any]) -> Call:
    """A vector for each input. `params` that are None are left out."""
    return _asked("/v1/embeddings", model, inputs, params)


def tokenize(prompt: str | None, messages: Messages | None, params: Mapping[str, Any]) -> Call:
    """The tokens of a text or of a conversation. `params` that are None are left out."""
    if (prompt is None) == (messages is None):
        raise InvalidArgument("give either a prompt or messages")
    asked = {"prompt": prompt, "messages": messages and list(messages), "return_token_strs": True}
    return Call("POST", "/tokenize", json=present({**asked, **params}))


def detokenize(ids: Any, model: str | None) -> Call:
    """The text of tokens."""
    return Call("POST", "/detokenize", json=present({"tokens": list(ids), "model": model}))


def parse_classification(response: httpx2.Response) -> Classification:
    """The labels of all inputs."""
    return _read(response, _to_classification)


def parse_embeddings(response: httpx2.Response) -> Embeddings:
    """The vectors of all inputs."""
    return _read(response, _to_embeddings)


def parse_tokens(response: httpx2.Response) -> Tokens:
    """The tokens of a text."""
    return _read(response, _to_tokens)


def parse_text(response: httpx2.Response) -> str:
    """The text of tokens."""
    return _read(response, lambda body: str(body["prompt"]))


def paired(asked: Sequence[Asked], answers: Sequence[Answer]) -> Iterator[tuple[Asked, Answer]]:
    """What was asked, each with its answer. Raises InvalidResponse where the server lost some."""
    if len(asked) != len(answers):
        raise InvalidResponse(f"the server sent {len(answers)} of {len(asked)} answers")
    return zip(asked, answers, strict=True)


def _read(response: httpx2.Response, build: Callable[[Any], Any]) -> Any:
    return understood(str(response.url), build, response.json)


def _asked(url: str, model: str, inputs: Inputs, params: Mapping[str, Any]) -> Call:
    given = inputs if isinstance(inputs, str) else list(inputs)
    return Call("POST", url, json={"model": model, "input": given, **present(params)})


def _to_classification(body: Json) -> Classification:
    return Classification(str(body["model"]), tuple(map(_label, body["data"])), *about(body), body)


def _label(body: Json) -> Label:
    scores = {str(one["label"]): float(one["score"]) for one in body["scores"]}
    return Label(str(body["label"]), float(body["score"]), scores)


def _to_embeddings(body: Json) -> Embeddings:
    vectors = tuple(tuple(map(float, one["embedding"])) for one in body["data"])
    return Embeddings(str(body["model"]), vectors, *about(body), body)


def _to_tokens(body: Json) -> Tokens:
    ids, texts = tuple(map(int, body["tokens"])), tuple(map(str, body["token_strs"] or ()))
    return Tokens(ids, texts, int(body["max_model_len"]), body)
