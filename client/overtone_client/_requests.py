"""One pure builder per endpoint: from arguments to the parts of an HTTP request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .errors import InvalidArgument
from .types import Messages, Prompt, Texts

if TYPE_CHECKING:
    import httpx2

MAX_PAGE = 100  # records asked for in one request
#: Words behind an adapter's name in the API's paths: ORG/versions would be another resource.
RESERVED = ("versions", "aliases", "rollback", "warm", "pin")


@dataclass(frozen=True)
class Call:
    """The arguments of `httpx2.Client.build_request`, without those that are not needed."""

    method: str
    url: str
    params: Mapping[str, Any] | None = None
    headers: Mapping[str, str] | None = None
    json: Mapping[str, Any] | None = None
    data: Mapping[str, str] | None = None
    files: Sequence[tuple[str, Any]] | None = None
    timeout: "httpx2.Timeout | None" = None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for `build_request` and `stream`."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Walk:
    """A walk over a list, page by page.

    Args:
        url: of the list.
        limit: how much is still wanted; None is all.
        after: id of the last entry so far.
        page: entries asked for in one request.
        more: other parameters of the query.
    """

    url: str
    limit: int | None
    after: str | None
    page: int = MAX_PAGE
    more: Mapping[str, Any] = field(default_factory=dict)

    def call(self) -> Call:
        """The request for the next page."""
        size = self.page if self.limit is None else min(self.limit, self.page)
        params = {"limit": size, "after": self.after, **self.more}
        return Call("GET", self.url, params=_present(params))

    def following(self, body: Mapping[str, Any]) -> "Walk | None":
        """The walk after the page with this body, None when it is over."""
        found = len(body["data"])
        left = None if self.limit is None else self.limit - found
        is_over = not body.get("has_more") or not found or (left is not None and left <= 0)
        if is_over:
            return None
        return replace(self, limit=left, after=str(body.get("last_id") or body["data"][-1]["id"]))


def walk(
    url: str, limit: int | None, after: str | None = None, page: int = MAX_PAGE, **more: Any
) -> Walk:
    """The walk from its beginning; what of `more` is None is left out of the query."""
    if limit is not None and limit < 1:
        raise InvalidArgument(f"limit must be at least 1, not {limit}")
    return Walk(url, limit, after, page, more)


def listing(limit: int | None, after: str | None, method: str | None, prefix: str | None) -> Walk:
    """The newest records of the adapters."""
    return walk("/v1/adapters", limit, after, method=method, prefix=prefix)


def show(name: str) -> Call:
    """The record of the newest version."""
    return Call("GET", adapter_path(name))


def versions(name: str) -> Walk:
    """The records of all versions."""
    return walk(adapter_path(name, "versions"), None)


def content(name: str, version: int) -> Call:
    """The coefficient file of one version."""
    return Call("GET", adapter_path(name, "versions", version, "content"))


def layers(name: str, version: int) -> Call:
    """The layers that one version changes."""
    return Call("GET", adapter_path(name, "versions", version, "layers"))


def delete(name: str, version: int | None) -> Call:
    """Delete one version, or the whole adapter."""
    tail = () if version is None else ("versions", version)
    return Call("DELETE", adapter_path(name, *tail))


def alias(name: str, alias: str, version: int, if_match: str | int | None) -> Call:
    """Move an alias, only if its ETag still is `if_match` when that is given.

    An alias's ETag is the version it points to, so a version's number will do.
    """
    etag = f'"{if_match}"' if isinstance(if_match, int) else if_match
    headers = None if etag is None else {"If-Match": etag}
    path = adapter_path(name, "aliases", alias)
    return Call("PUT", path, headers=headers, json={"version": version})


def rollback(name: str) -> Call:
    """`latest` back to where it pointed before."""
    return Call("POST", adapter_path(name, "rollback"))


def share(name: str, shared: bool | None, tenants: Sequence[str] | None) -> Call:
    """Which other tenants may use an adapter."""
    given = {"shared": shared, "shared_with": None if tenants is None else list(tenants)}
    if not _present(given):
        raise InvalidArgument("nothing to change: give shared, or tenants, or both")
    return Call("PATCH", adapter_path(name), json=_present(given))


def warm(name: str) -> Call:
    """Load an adapter before its first request."""
    return Call("POST", adapter_path(name, "warm"))


def pin(name: str) -> Call:
    """Keep an adapter in memory."""
    return Call("PUT", adapter_path(name, "pin"))


def unpin(name: str) -> Call:
    """Unpin an adapter, so that it can be evicted."""
    return Call("DELETE", adapter_path(name, "pin"))


def models(limit: int | None, after: str | None) -> Walk:
    """The base and its adapters, in OpenAI's shape: their entries are short, so many at once."""
    return walk("/v1/models", limit, after, page=1000)


def model(name: str) -> Call:
    """One of them, by any name that a request may use."""
    return Call("GET", "/".join(["/v1/models", *(_segment(part) for part in name.split("/"))]))


def version() -> Call:
    """What runs there."""
    return Call("GET", "/version")


def health() -> Call:
    """Whether the server is ready."""
    return Call("GET", "/health/ready")


def complete(model: str, prompt: Prompt, params: Mapping[str, Any]) -> Call:
    """A whole completion. `params` that are None are left out."""
    return Call("POST", "/v1/completions", json=body_of(params, model=model, prompt=prompt))


def chat(model: str, messages: Messages, params: Mapping[str, Any]) -> Call:
    """A whole chat completion. `params` that are None are left out."""
    body = body_of(params, model=model, messages=list(messages))
    return Call("POST", "/v1/chat/completions", json=body)


def rerank(model: str, query: str, documents: Sequence[str], params: Mapping[str, Any]) -> Call:
    """Documents ordered by a cross-encoder."""
    body = {"model": model, "query": query, "documents": list(documents)}
    return Call("POST", "/v1/rerank", json={**body, **_present(params)})


def score(model: str, text_1: Texts, text_2: Texts, params: Mapping[str, Any]) -> Call:
    """Pairs of texts scored by a cross-encoder."""
    pair = [text if isinstance(text, str) else list(text) for text in (text_1, text_2)]
    body = {"model": model, "text_1": pair[0], "text_2": pair[1]}
    return Call("POST", "/v1/score", json={**body, **_present(params)})


def streamed(call: Call) -> Call:
    """The same call, answered by server-sent events, the last of them with the usage."""
    usage = {"stream_options": {"include_usage": True}}
    return replace(call, json={**usage, **(call.json or {}), "stream": True})


def adapter_path(name: str, *tail: str | int) -> str:
    """`/v1/adapters/NAME/…`, each part quoted; raises InvalidArgument where that cannot be done.

    The slash of ORG/NAME stays one: not every proxy passes `%2F` on.
    """
    owner, colon, rest = name.rpartition(":")  # a gateway's caller has a '/' in its name
    parts = rest.split("/")
    if len(parts) > 2 or parts[1:] and parts[1] in RESERVED:
        words = ", ".join(RESERVED)
        raise InvalidArgument(
            f"{name!r} cannot be an adapter's name: it has at most one '/', and behind it none of "
            + words
        )
    if colon:
        parts[0] = f"{owner}:{parts[0]}"
    return "/".join(["/v1/adapters", *(_segment(str(part)) for part in (*parts, *tail))])


def _segment(part: str) -> str:
    if part in ("", ".", ".."):  # would name another resource than the one meant
        raise InvalidArgument(f"{part!r} cannot be a name or a version")
    return quote(part, safe="@:")


def body_of(params: Mapping[str, Any], **fixed: Any) -> dict[str, Any]:
    """The body of a request to a model; parameters that are None are left out."""
    if "stream" in params:
        raise InvalidArgument(
            "`stream` is not a parameter: call stream_complete, stream_chat or stream_compare"
        )
    return {**fixed, **_present(params)}


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
