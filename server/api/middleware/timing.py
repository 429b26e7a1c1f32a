"""How long every request took, and how it ended."""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.middleware.messages import HUNG_UP, route_of
from server.telemetry.observer import Observer

_LOG = logging.getLogger("overtone.requests")


class Timing:
    """Reports route, status and duration of every request to the observer.

    The status of a caller that hung up before the answer's end is 499, in a stream, too.

    Args:
        app: the application inside.
        observer: of the server.
        logs: whether each request below /v1 has a line in the log, too.
    """

    def __init__(self, app: ASGIApp, observer: Observer, logs: bool = False) -> None:
        self._app = app
        self._observer = observer
        self._logs = logs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = HUNG_UP

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            if scope["state"].get("is_gone"):  # set by process/connection.py
                status = HUNG_UP
            seconds = time.perf_counter() - started
            self._observer.on_request(route_of(scope), status, seconds)
            if self._logs and scope["path"].startswith("/v1/"):
                _log(scope, status, seconds)


def _log(scope: Scope, status: int, seconds: float) -> None:
    """Write how a request ended; nothing of its body."""
    method, route, state = scope["method"], route_of(scope), scope["state"]
    fields = {"method": method, "route": route, "status": status, "seconds": round(seconds, 6)}
    if state.get("tenant"):
        fields["tenant"] = state["tenant"]
    line = "%s %s: %d in %.3f s (request %s)"
    _LOG.info(line, method, route, status, seconds, state["request_id"], extra={"fields": fields})
