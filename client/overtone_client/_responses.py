"""One pure parser per answer: from an HTTP response to a value of types.py or an error."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx2

from .errors import APIError, InvalidResponse, api_error_class
from .types import (
    Adapter,
    AdapterLayer,
    Alias,
    AnsweredBy,
    Base,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    Choice,
    Completion,
    CompletionChunk,
    Message,
    Model,
    RankedDocument,
    Reranking,
    Scores,
    ToolCall,
    Usage,
    Version,
)

T = TypeVar("T")
Json = Mapping[str, Any]


def checked(response: httpx2.Response) -> httpx2.Response:
    """The response, if it is a success; its body must have been read. Raises the mapped error."""
    if response.is_success:
        return response
    try:
        body = response.json()
    except ValueError:  # a proxy's page, not the server's JSON
        body = None
    raise api_error(body, response.status_code, response.headers)


def api_error(body: Any, status: int | None, headers: Mapping[str, str]) -> APIError:
    """The error a body describes. Without a status, as in mid stream, the code's own is taken."""
    body = body if isinstance(body, Mapping) else {}
    given = body.get("error", body.get("detail"))
    fault: Json = given if isinstance(given, Mapping) else {"message": given}
    code = None if fault.get("code") is None else str(fault["code"])
    message = fault.get("message") or f"the server answered {status or 'an error'} and no reason"
    return api_error_class(code, status or 0)(
        str(message),
        status=status,
        code=code,
        param=fault.get("param"),
        request_id=headers.get("x-request-id"),
        retry_after=_seconds(headers.get("retry-after")),
    )


def understood(url: str, build: Callable[[Any], T], body: Callable[[], Any]) -> T:
    """`build(body())`. Raises InvalidResponse where the body is not of the expected shape."""
    try:
        return build(body())
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        detail = f"{type(error).__name__}: {error}"
        raise InvalidResponse(InvalidResponse.text.format(url=url, detail=detail)) from error


def parse_adapter(response: httpx2.Response) -> Adapter:
    """One record."""
    return understood(str(response.url), to_adapter, response.json)


def parse_items(response: httpx2.Response, build: Callable[[Any], T]) -> tuple[Sequence[T], Json]:
    """The values of one page of any list, and its body."""

    def both(body: Json) -> tuple[Sequence[T], Json]:
        return [build(item) for item in body["data"]], body

    return understood(str(response.url), both, response.json)


def parse_alias(response: httpx2.Response, name: str, alias: str) -> Alias:
    """Where the alias points after its move."""
    etag = response.headers.get("etag")
    version = understood(str(response.url), lambda body: int(body["version"]), response.json)
    return Alias(name, alias, version, etag)


def parse_completion(response: httpx2.Response) -> Completion:
    """A whole completion."""
    return understood(str(response.url), to_completion, response.json)


def parse_chat(response: httpx2.Response) -> ChatCompletion:
    """A whole chat completion."""
    return understood(str(response.url), to_chat, response.json)


def parse_reranking(response: httpx2.Response) -> Reranking:
    """Documents in their order."""
    return understood(str(response.url), _to_reranking, response.json)


def parse_scores(response: httpx2.Response) -> Scores:
    """Scores of pairs."""
    return understood(str(response.url), _to_scores, response.json)


def to_adapter(body: Json) -> Adapter:
    """A record from its JSON."""
    base = body.get("base") or {}
    return Adapter(
        name=str(body["name"]),
        version=int(body["version"]),
        digest=str(body["digest"]),
        method=body.get("method"),
        method_config=body.get("method_config") or {},
        base=Base(base.get("name"), base.get("fingerprint"), bool(base.get("verified", True))),
        target_modules=_modules(body.get("target_modules")),
        num_coefficients=body.get("num_coefficients"),
        size_bytes=body.get("size_bytes"),
        created_at=_time(body.get("created_at")),
        created_by=body.get("created_by"),
        aliases=_aliases(body.get("aliases"), int(body["version"])),
        metadata=body.get("metadata") or {},
        metrics=body.get("metrics") or {},
        residency=body.get("residency"),
        owner=body.get("owner"),
        shared=bool(body.get("shared")),
        shared_with=tuple(body.get("shared_with") or ()),
        raw=body,
    )


def to_layer(body: Json) -> AdapterLayer:
    """A layer that an adapter changes, from its JSON."""
    target, method, shape = str(body["target"]), str(body["method"]), tuple(map(int, body["shape"]))
    return AdapterLayer(target, method, shape, int(body["num_coefficients"]), body)


def to_model(body: Json) -> Model:
    """What can be named as `model`, from its JSON."""
    optional = ("created", "owned_by", "root", "parent")
    return Model(id=str(body["id"]), **{name: body.get(name) for name in optional}, raw=body)


def parse_model(response: httpx2.Response) -> Model:
    """One that can be named as `model`."""
    return understood(str(response.url), to_model, response.json)


def parse_version(response: httpx2.Response) -> Version:
    """What runs on the server."""
    return understood(str(response.url), _to_version, response.json)


def _to_version(body: Json) -> Version:
    base = Base(str(body["base"]["name"]), str(body["base"]["fingerprint"]), True)
    return Version(str(body["version"]), base, int(body["max_length"]), body)


def to_completion(body: Json) -> Completion:
    """A completion from its JSON."""
    return Completion(**_answer(body), choices=tuple(map(_choice, body["choices"])))


def to_completion_chunk(body: Json) -> CompletionChunk:
    """One event of a streamed completion."""
    return CompletionChunk(**_answer(body), choices=tuple(map(_choice, body["choices"])))


def to_chat(body: Json) -> ChatCompletion:
    """A chat completion from its JSON."""
    return ChatCompletion(**_answer(body), choices=tuple(map(_chat_choice, body["choices"])))


def to_chat_chunk(body: Json) -> ChatChunk:
    """One event of a streamed chat."""
    return ChatChunk(**_answer(body), choices=tuple(map(_chat_choice, body["choices"])))


def _to_reranking(body: Json) -> Reranking:
    found = tuple(
        RankedDocument(
            int(one["index"]),
            float(one["relevance_score"]),
            (one.get("document") or {}).get("text"),
        )
        for one in body["results"]
    )
    return Reranking(str(body["model"]), found, *about(body), body)


def _to_scores(body: Json) -> Scores:
    scores = tuple(float(one["score"]) for one in body["data"])
    return Scores(str(body["model"]), scores, *about(body), body)


def about(body: Json) -> tuple[Usage | None, AnsweredBy | None]:
    """What an answer to inputs says of itself; nothing was generated."""
    usage, answered_by = body.get("usage"), body.get("overtone")
    counted = usage and Usage(int(usage["prompt_tokens"]), 0, int(usage["total_tokens"]))
    return counted, answered_by and _answered_by(answered_by)


def _answer(body: Json) -> dict[str, Any]:
    usage, answered_by = body.get("usage"), body.get("overtone")
    return {
        "id": str(body.get("id", "")),
        "model": str(body["model"]),
        "created": body.get("created"),
        "usage": usage and _usage(usage),
        "answered_by": answered_by and _answered_by(answered_by),
        "raw": body,
    }


def _usage(body: Json) -> Usage:
    prompt, completion = int(body["prompt_tokens"]), int(body.get("completion_tokens", 0))
    return Usage(prompt, completion, int(body.get("total_tokens", prompt + completion)))


def _answered_by(body: Json) -> AnsweredBy:
    version = body.get("version")
    number = None if version is None else int(version)
    return AnsweredBy(body.get("adapter"), number, body.get("digest"), body.get("mode"))


def _choice(body: Json) -> Choice:
    ids = body.get("token_ids")
    return Choice(
        index=int(body.get("index", 0)),
        text=body.get("text") or "",
        finish_reason=body.get("finish_reason"),
        token_ids=None if ids is None else tuple(ids),
        logprobs=body.get("logprobs"),
    )


def _chat_choice(body: Json) -> ChatChoice:
    message = body["message"] if "message" in body else body["delta"]
    calls = enumerate(message.get("tool_calls") or ())
    return ChatChoice(
        index=int(body.get("index", 0)),
        message=Message(
            message.get("role"),
            message.get("content") or "",
            tuple(_tool_call(number, call) for number, call in calls),
        ),
        finish_reason=body.get("finish_reason"),
        logprobs=body.get("logprobs"),
    )


def _tool_call(number: int, body: Json) -> ToolCall:
    """A call, or a piece of one; pieces say which call they are of."""
    function = body["function"]
    index = {"index": number, **body}["index"]
    return ToolCall(index, body.get("id"), function.get("name"), function["arguments"])


def _aliases(given: Any, version: int) -> dict[str, int]:
    """Alias to version, also from a bare list of the aliases that point to this version."""
    if isinstance(given, Mapping):
        return {str(name): int(target) for name, target in given.items()}
    return dict.fromkeys(given or (), version)


def _modules(given: Any) -> tuple[str, ...]:
    """A config may name its modules by a list or by one pattern."""
    return (given,) if isinstance(given, str) else tuple(given or ())


def _time(given: Any) -> datetime | None:
    if given is None:
        return None
    if isinstance(given, str):
        moment = datetime.fromisoformat(given)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return datetime.fromtimestamp(given, UTC)


def _seconds(given: str | None) -> float | None:
    """Seconds from now of a Retry-After, in either form; a proxy may send a date."""
    try:
        seconds = float(given or "nan")
    except ValueError:
        seconds = _seconds_until(given or "")
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _seconds_until(date: str) -> float:
    try:
        then = parsedate_to_datetime(date)
    except ValueError:
        return math.nan
    return (then.astimezone(UTC) - datetime.now(UTC)).total_seconds()
