"""A cap on the bytes of a body."""

import asyncio
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.middleware.messages import header, send_error
from server.errors import PayloadTooLarge


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
        declared = header(scope, b"content-length")
        if declared.isdigit() and int(declared) > limit:
            await _drain_a_little(receive)
            await send_error(send, _too_large(int(declared), limit))
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


async def _drain_a_little(receive: Receive) -> None:
    """Read what was sent already, so that a simple client sees the answer, not a reset."""
    for _ in range(16):
        try:
            message = await asyncio.wait_for(receive(), 0.1)
        except TimeoutError:
            return
        if not message.get("more_body"):
            return
