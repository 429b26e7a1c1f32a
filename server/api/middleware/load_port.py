"""A port for schedulers: pickers of endpoints send no key, and no other header of one's choice."""

from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.load_page import load_page
from server.api.middleware.messages import send_error
from server.errors import NotFound

PATH = "/metrics/load"


class LoadPort:
    """Answers requests on one port itself: its page, without a key, and nothing else.

    Args:
        app: answers those on other ports.
        port: of the server's socket, whatever a request's `Host` says.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] != "http" or scope["server"][1] != self._port:
            await self._app(scope, receive, send)
        elif (scope["method"], scope["path"]) == ("GET", PATH):
            await load_page(scope["app"].state)(scope, receive, send)
        else:
            await send_error(send, NotFound(f"this port has GET {PATH} and nothing else"))
