"""Errors without a handler."""

import logging

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.middleware.messages import send_error

_LOG = logging.getLogger("overtone")


class LastResort:
    """Answers 500 for an error without a handler, and logs it under the request's id.

    A caller that has hung up gets no answer, and is no error of the server's.
    """

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
        except ClientDisconnect:
            return
        except Exception as error:
            _LOG.error("request %s failed", scope["state"]["request_id"], exc_info=error)
            if has_begun:
                raise
            await send_error(send, error)
