"""An id for every request."""

import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.middleware.messages import header
from server.telemetry.process_log import request_id

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
        given = header(scope, b"x-request-id").decode("latin-1")
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

        token = request_id.set(identity)
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            request_id.reset(token)
