"""How long every request took, and how it ended."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.telemetry.observer import Observer

_HUNG_UP = 499


class Timing:
    """Reports route, status and duration of every request to the observer.

    The status of a caller that hung up before the answer's end is 499, in a stream, too.
    """

    def __init__(self, app: ASGIApp, observer: Observer) -> None:
        self._app = app
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = _HUNG_UP

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            # The route's template, not the path: the number of series stays bounded.
            route = getattr(scope.get("route"), "path", "unknown").replace(":adapter}", "}")
            if scope["state"].get("is_gone"):  # set by process/connection.py
                status = _HUNG_UP
            self._observer.on_request(route, status, time.perf_counter() - started)
