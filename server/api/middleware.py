"""ASGI middleware: request id, API key, limit of the body, metrics, errors that nothing handled."""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Mapping, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api_keys import read_keys, tenant_of
from server.errors import InvalidApiKey, PayloadTooLarge, body_of, status_of
from server.telemetry.observer import Observer

_LOG = logging.getLogger("overtone")
_OPEN_PATHS = frozenset(
    {
        "/",
        "/health/live",
        "/health/ready",
        "/openapi.json",
        "/docs",
        "/docs/start.js",
        "/docs/swagger-ui-bundle.js",
        "/docs/swagger-ui.css",
    }
)
_MAX_ID_CHARS = 128


class RequestId:
    """Puts X-Request-Id on every answer: the caller's own, or a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = _header(scope, b"x-request-id").decode("latin-1")
        good = given.isascii() and given.isprintable() and 0 < len(given) <= _MAX_ID_CHARS
        identity = given if good else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = identity

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", identity.encode()),
                ]
            await send(message)

        await self._app(scope, receive, send_with_id)


class Timing:
    """Reports route, status and duration of every request to the observer."""

    def __init__(self, app: ASGIApp, observer: Observer) -> None:
        self._app = app
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 499  # the caller hung up before an answer began

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            # The route's template, not the path: the number of series stays bounded.
            route = getattr(scope.get("route"), "path", "unknown")
            self._observer.on_request(route, status, time.perf_counter() - started)


class ApiKeys:
    """Requires a key on every path but health checks and pages, if the server has keys.

    The key names the tenant (api_keys.py). A gateway with one key for many tenants may name the
    tenant in the header `tenant_header`; without that setting no header is read.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], tenant_header: str | None = None) -> None:
        self._app = app
        self._keys = read_keys(keys)
        self._tenant_header = (tenant_header or "").lower().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        tenant = self._tenant(scope)
        if tenant is None:
            error = InvalidApiKey("the API key is missing or wrong: send Authorization: Bearer KEY")
            await _answer(send, error)
            return
        scope.setdefault("state", {})["tenant"] = self._named(scope, tenant)
        await self._app(scope, receive, send)

    def _tenant(self, scope: Scope) -> str | None:
        """Return the key's tenant, the empty name where no key is needed, None for a wrong key."""
        key = self._key_of(_header(scope, b"authorization"))
        found = None if key is None else tenant_of(self._keys, key)
        needs_none = not self._keys or scope["path"] in _OPEN_PATHS
        return "" if found is None and needs_none else found

    def _named(self, scope: Scope, own: str) -> str:
        """Return the tenant that the request counts for."""
        named = _header(scope, self._tenant_header) if self._tenant_header else b""
        return f"{own}/{named[:_MAX_ID_CHARS].decode('latin-1')}" if named else own

    @staticmethod
    def _key_of(header: bytes) -> bytes | None:
        scheme, _, key = header.partition(b" ")
        return key.strip() if scheme.lower() == b"bearer" else None


class BodyLimit:
    """Refuses a body over its cap, by its declared length or as soon as it is exceeded.

    Args:
        app: the application inside.
        max_bytes: limit for paths that are not in `uploads`.
        uploads: path -> limit of the file that is posted there; 1 MiB is added for the form.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, uploads: Mapping[str, int]) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope)
        declared = _header(scope, b"content-length")
        if declared.isdigit() and int(declared) > limit:
            await _drain_a_little(receive)
            await _answer(send, _too_large(int(declared), limit))
            return
        seen = 0

        async def receive_and_count() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise _too_large(seen, limit)
            return message

        await self._app(scope, receive_and_count, send)

    def _limit(self, scope: Scope) -> int:
        upload = self._uploads.get(scope["path"]) if scope["method"] == "POST" else None
        return self._max_bytes if upload is None else upload + (1 << 20)


def _too_large(size: int, limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body has {size} bytes or more; at most {limit} are taken")


class LastResort:
    """Answers 500 for an error without a handler, and logs it under the request's id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception as error:
            _LOG.error("request %s failed", scope["state"]["request_id"], exc_info=error)
            if has_begun:
                raise
            await _answer(send, error)


async def _drain_a_little(receive: Receive) -> None:
    """Read what was sent already, so that a simple client sees the answer, not a reset."""
    for _ in range(16):
        try:
            message = await asyncio.wait_for(receive(), 0.1)
        except TimeoutError:
            return
        if not message.get("more_body"):
            return


def _header(scope: Scope, name: bytes) -> bytes:
    value: bytes = next((v for k, v in scope["headers"] if k == name), b"")
    return value


async def _answer(send: Send, error: Exception) -> None:
    body = json.dumps(body_of(error)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    status = status_of(error)
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
