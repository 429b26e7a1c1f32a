"""What both clients are made of: address, key, timeouts, and the errors of the network."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import Any, TypeAlias

import httpx2

from ._requests import Call
from .errors import ConnectionFailed, ConnectionLost, InvalidArgument, InvalidResponse, Timeout

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT = httpx2.Timeout(600.0, connect=5.0)  # seconds; a long answer may take minutes

TimeoutTypes: TypeAlias = float | httpx2.Timeout | None

# For plain HTTP: reading the certificates of a thousand authorities would take 30 ms for nothing.
_NOTHING_TRUSTED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

Translation: TypeAlias = (
    type[ConnectionFailed] | type[Timeout] | type[InvalidResponse] | type[InvalidArgument]
)
# httpx2's error and ours; the nearest base class in this table counts
_OURS: dict[type[Exception], Translation] = {
    httpx2.ConnectTimeout: ConnectionFailed,
    httpx2.TimeoutException: Timeout,
    httpx2.ReadError: ConnectionLost,
    httpx2.WriteError: ConnectionLost,
    httpx2.CloseError: ConnectionLost,
    httpx2.RemoteProtocolError: ConnectionLost,
    httpx2.LocalProtocolError: InvalidArgument,  # such as a file that shrank while it was sent
    httpx2.UnsupportedProtocol: InvalidArgument,
    httpx2.SSEError: InvalidResponse,
    httpx2.TransportError: ConnectionFailed,
    httpx2.RequestError: InvalidResponse,  # undecodable bodies, redirects in a circle
}


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Let httpx2's request errors leave the block as errors.py's, with `url` in the message."""
    try:
        yield
    except httpx2.RequestError as error:
        ours = next(_OURS[cls] for cls in type(error).__mro__ if cls in _OURS)
        detail = str(error) or type(error).__name__
        if "WRONG_VERSION_NUMBER" in detail:  # OpenSSL's words for an answer in plain HTTP
            detail = "it does not speak TLS: an http:// URL may do"
        raise ours(ours.text.format(url=url, detail=detail)) from error


def built(http: httpx2.Client | httpx2.AsyncClient, call: Call) -> httpx2.Request:
    """The request of a call. Raises InvalidArgument where a value cannot be written as JSON."""
    try:
        return http.build_request(**call.arguments())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"the request cannot be written: {error}") from error


def within(call: Call, own: httpx2.Timeout, seconds: float) -> Call:
    """The call, with none of the client's own timeouts longer than so many seconds."""
    limits = {
        name: seconds if limit is None else min(limit, seconds)
        for name, limit in own.as_dict().items()
    }
    return replace(call, timeout=httpx2.Timeout(**limits))


def options(
    base_url: str, api_key: str | None, timeout: TimeoutTypes, acting_for: str | None
) -> dict[str, Any]:
    """Keyword arguments for `httpx2.Client`.

    Raises:
        InvalidArgument: the URL is not one of http or https, or the key or the tenant cannot stand
            in a header.
    """
    headers = {"User-Agent": f"overtone-client/{version('overtone-client')}"}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {_checked_key(api_key)}"
    if acting_for is not None:
        headers["X-Overtone-Tenant"] = _checked_tenant(acting_for)
    url = _checked_url(base_url)
    verify = True if url.startswith("https:") else _NOTHING_TRUSTED
    return {"base_url": url, "headers": headers, "timeout": timeout, "verify": verify}


def _checked_url(base_url: str) -> str:
    """The server's root: OpenAI's clients are given it with `/v1`, so that is taken too."""
    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL as error:
        raise InvalidArgument(f"{base_url!r} is not a URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidArgument(f"{base_url!r} is not a server's URL, like {DEFAULT_URL}")
    if url.userinfo:
        raise InvalidArgument("a key does not belong into the URL: give it as the API key")
    return str(url).rstrip("/").removesuffix("/v1")


def _checked_tenant(tenant: str) -> str:
    if not tenant or not all(" " <= character <= "~" for character in tenant):
        raise InvalidArgument(f"no tenant is called {ascii(tenant[:80])}")
    return tenant


def _checked_key(api_key: str) -> str:
    """The key, which never appears in a message."""
    if not api_key or not all("!" <= character <= "~" for character in api_key):
        raise InvalidArgument("the API key is empty or has characters no key has")
    return api_key
