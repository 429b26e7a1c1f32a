"""Bounds of a body: its bytes, and the time that it takes to come."""

import asyncio
import time
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.middleware.messages import header, send_error
from server.api.pace import Pace
from server.errors import PayloadTooLarge, RequestTimeout


class BodyLimit:
    """Refuses a body over its cap, by its declared length or as soon as it is exceeded.

    Args:
        app: the application inside.
        max_bytes: limit for paths that are not in `uploads`.
        uploads: path -> limit of the file that is posted there; 1 MiB is added for the form.
        stall_s: seconds that the caller may pause while it sends; see pace.py.
    """

    def __init__(
        self, app: ASGIApp, max_bytes: int, uploads: Mapping[str, int], stall_s: float
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._uploads = uploads
        self._stall_s = stall_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413."""
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope)
        declared = header(scope, b"content-length")
        if declared.isdigit() and int(declared) > limit:
            await _drain_a_little(receive)
            await send_error(send, _too_large(int(declared), limit))
            return
        await self._app(scope, _Body(receive, limit, self._stall_s).receive, send)

    def _limit(self, scope: Scope) -> int:
        upload = self._uploads.get(scope["path"]) if scope["method"] == "POST" else None
        return self._max_bytes if upload is None else upload + (1 << 20)


class _Body:
    """A body that is being received.

    Args:
        receive: from the server.
        limit: in bytes.
        stall_s: of its `Pace`, whose clock runs while the server waits for the caller only.
    """

    def __init__(self, receive: Receive, limit: int, stall_s: float) -> None:
        self._receive, self._limit = receive, limit
        self._pace = Pace(stall_s)
        self._is_whole = False

    async def receive(self) -> Message:
        """Return the next part of it, or that the caller has hung up.

        Raises:
            PayloadTooLarge: it is over the limit.
            RequestTimeout: it comes too slowly.
        """
        if self._is_whole:
            return await self._receive()
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._pace.patience_s):
                message = await self._receive()
        except TimeoutError:
            raise RequestTimeout(self._pace.fault) from None
        self._pace.moved(len(message.get("body", b"")), time.monotonic() - started)
        self._is_whole = not message.get("more_body")
        if self._pace.num_bytes > self._limit:
            raise _too_large(self._pace.num_bytes, self._limit)
        return message


def _has_body(scope: Scope) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


def _too_large(size: int, limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body has {size} bytes or more; at most {limit} are taken")


async def _drain_a_little(receive: Receive) -> None:
    """Read what was sent already, so that a simple client sees the answer, not a reset."""
    for _ in range(16):
        try:
            message = await asyncio.wait_for(receive(), 0.1)
        except TimeoutError:
            return
        if not message.get("more_body"):
            return
