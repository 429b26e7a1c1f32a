"""What a route says of itself in the OpenAPI document, declared in its decorator.

    @router.get(
        "/v1/models",
        **describe("listModels", answer(ModelList), errors=ASKS_REGISTRY, scopes=READS),
    )

Bodies are described by the models that check them, answers by the types of server/api/bodies,
errors by their classes, which know status and code. Scopes are those of which a caller's key needs
one: callers.py enforces what is declared here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from inspect import getdoc
from typing import Any

from fastapi import Response
from pydantic import TypeAdapter

from adapters_core import errors as adapter
from registry import Scope
from registry import errors as registry
from server.api.bodies.errors import ErrorBody
from server.errors import (
    AdapterTooLarge,
    DeadlineExceeded,
    Draining,
    ForbiddenOrigin,
    InsufficientScope,
    InternalError,
    InvalidApiKey,
    InvalidRequest,
    NotReady,
    OutOfMemory,
    Overloaded,
    PayloadTooLarge,
    PromptTooLong,
    RateLimited,
    RequestTimeout,
    StorageFull,
    UnsupportedMediaType,
    UnsupportedParameter,
    status_of_class,
)

Json = dict[str, Any]
Errors = tuple[type[Exception], ...]

Scopes = tuple[Scope, ...]
#: No key is asked for; the path is one of OPEN_PATHS, too.
OPEN: Scopes = ()
INFER: Scopes = ("infer",)
UPLOAD: Scopes = ("upload",)
TRAIN: Scopes = ("train",)
ADMIN: Scopes = ("admin",)
#: What every key may read but one for metrics alone.
READS: Scopes = ("infer", "upload", "train")

SCHEMAS = "#/components/schemas/{model}"

INVALID: Errors = (InvalidRequest,)
#: The request is answered by the running service.
SERVES: Errors = (NotReady, Draining)
ASKS_REGISTRY: Errors = (*SERVES, registry.RegistryUnavailable)
WRITES: Errors = (*ASKS_REGISTRY, StorageFull)
#: `model` or a name in the path is looked up.
RESOLVES: Errors = (*ASKS_REGISTRY, registry.AdapterNotFound, adapter.BaseMismatch)
#: An adapter's file is read and checked.
READS_ADAPTER: Errors = (
    adapter.InvalidAdapter,
    adapter.UnknownMethod,
    adapter.UnusedTensors,
    adapter.NonFinite,
    adapter.NoEffect,
    AdapterTooLarge,
)
LOADS: Errors = (*RESOLVES, *READS_ADAPTER, Overloaded, OutOfMemory)
#: The request is counted by its tenant's limits.
LIMITED: Errors = (RateLimited, registry.QuotaExceeded)
ANSWERS: Errors = (*LOADS, *LIMITED, UnsupportedParameter, PromptTooLong, DeadlineExceeded)


@dataclass(frozen=True)
class Answer:
    """A success of a route: its status, what it holds by media type, and its own headers."""

    content: Json
    status: int = 200
    headers: tuple[str, ...] = ()
    description: str = ""

    def response(self) -> Json:
        headers = _headers("X-Request-Id", *self.headers)
        description = self.description or HTTPStatus(self.status).phrase
        return {"description": description, "content": self.content, "headers": headers}


def answer(
    model: Any, *, status: int = 200, events: Any = None, is_named: bool = False, **rest: Any
) -> Answer:
    """Return an answer of JSON; with `events`, of server-sent events when a stream is asked for.

    Events that are `is_named` have the name of their type; an error is one of them, and no `[DONE]`
    follows.
    """
    content = {"application/json": {"schema": schema_of(model)}}
    stream = _named_stream if is_named else _stream
    return Answer(content | (stream(events) if events is not None else {}), status, **rest)


def raw(media_type: str, description: str, **rest: Any) -> Answer:
    """Return an answer of bytes or text."""
    schema = {"type": "string"}
    if not media_type.startswith("text/"):
        schema["format"] = "binary"
    return Answer({media_type: {"schema": schema}}, description=description, **rest)


@dataclass(frozen=True)
class Form:
    """A body of multipart/form-data.

    Args:
        model: its fields; those that are files are `bytes`.
        content_types: field -> media type of its part.
        part_headers: field -> header of its part -> what it says.
    """

    model: Any
    content_types: dict[str, str]
    part_headers: dict[str, dict[str, str]] = field(default_factory=dict)

    def media(self) -> Json:
        encoding = {
            name: {"contentType": content_type, "headers": self._headers_of(name)}
            for name, content_type in self.content_types.items()
        }
        return {"multipart/form-data": {"schema": schema_of(self.model), "encoding": encoding}}

    def _headers_of(self, name: str) -> Json:
        return {
            header: {"description": text, "schema": {"type": "string"}}
            for header, text in self.part_headers.get(name, {}).items()
        }


def describe(
    operation_id: str,
    *answers: Answer,
    body: Any = None,
    errors: Sequence[type[Exception]] = (),
    scopes: Scopes,
) -> Json:
    """Return the keyword arguments of a route's decorator.

    Args:
        operation_id: of OpenAPI; generated clients name the function so.
        answers: its successes.
        body: the model of a JSON body, or a `Form`.
        errors: classes of errors that this route can give, beside those that every route gives.
        scopes: of which a key needs one; `OPEN` asks for no key.
    """
    raised: list[type[Exception]] = [
        *errors,
        InvalidRequest,
        ForbiddenOrigin,
        InternalError,
    ]
    extra: Json = {"security": [{"apiKey": [scope]} for scope in scopes]}
    if scopes:
        raised += [InvalidApiKey, InsufficientScope, NotReady, registry.RegistryUnavailable]
    if body is not None:
        raised += [PayloadTooLarge, RequestTimeout]
        raised += [] if isinstance(body, Form) else [UnsupportedParameter, UnsupportedMediaType]
        media = body.media() if isinstance(body, Form) else _json_media(body)
        extra["requestBody"] = {"required": True, "content": media}
    responses = {found.status: found.response() for found in answers}
    arguments: Json = {"operation_id": operation_id, "openapi_extra": extra}
    arguments["response_model"] = dict[str, Any]  # answers are checked by mypy and by tests
    arguments["responses"] = responses | error_responses(raised)
    if 200 not in responses:
        arguments["status_code"] = answers[0].status  # or a 200 is declared beside it
    if all("application/json" not in found.content for found in answers):
        arguments["response_class"] = Response
    return arguments


def error_responses(raised: Sequence[type[Exception]]) -> dict[int | str, Json]:
    """Return the responses of errors, by status, with the codes that each may have."""
    by_status: dict[int, list[type[Exception]]] = {}
    for cls in dict.fromkeys(raised):
        by_status.setdefault(status_of_class(cls), []).append(cls)
    return {status: _error_response(status, found) for status, found in sorted(by_status.items())}


def _error_response(status: int, classes: list[type[Exception]]) -> Json:
    meanings: dict[str, str] = {}
    for cls in classes:
        meanings.setdefault(cls.code, (getdoc(cls) or "").splitlines()[0])  # type: ignore[attr-defined]
    code = {"properties": {"code": {"enum": list(meanings)}}}
    schema = {"allOf": [schema_of(ErrorBody), {"properties": {"error": code}}]}
    own = {401: ["WWW-Authenticate"], 429: ["Retry-After"], 503: ["Retry-After"]}.get(status, [])
    return {
        "description": "\n".join(f"- `{code}`: {text}" for code, text in meanings.items()),
        "content": {"application/json": {"schema": schema}},
        "headers": _headers("X-Request-Id", *own),
    }


def schema_of(model: Any) -> Json:
    """Return a reference to a model's schema, with the schema beside it under `$defs`.

    The document moves `$defs` to its components.
    """
    schema = TypeAdapter(model).json_schema(ref_template=SCHEMAS)
    inner = schema.pop("$defs", {})
    if "title" not in schema or "$ref" in schema:  # a union of models, or a model that holds itself
        return {**schema, "$defs": inner}
    name = schema["title"]
    return {"$ref": SCHEMAS.format(model=name), "$defs": {**inner, name: schema}}


def _json_media(model: Any) -> Json:
    return {"application/json": {"schema": schema_of(model)}}


def _stream(model: Any) -> Json:
    told = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": schema_of(model | ErrorBody),
    }
    done = {"const": "[DONE]", "description": "Ends the stream."}
    data = {"anyOf": [done, told]}
    event = {"type": "object", "properties": {"data": data}, "required": ["data"]}
    return {"text/event-stream": {"itemSchema": event}}


def _named_stream(model: Any) -> Json:
    told = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": schema_of(model),
    }
    properties = {"event": {"type": "string"}, "data": told}
    event = {"type": "object", "properties": properties, "required": ["event", "data"]}
    return {"text/event-stream": {"itemSchema": event}}


def _headers(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
