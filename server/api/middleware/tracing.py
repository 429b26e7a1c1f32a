"""A span for every request of the API; only there where traces are sent."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.middleware.messages import HUNG_UP, header, route_of
from server.telemetry.traces import Traces

_PARENT = (b"traceparent", b"tracestate")


class Tracing:
    """Traces what is below /v1: probes and scrapes would hide it."""

    def __init__(self, app: ASGIApp, traces: Traces) -> None:
        self._app = app
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        status = HUNG_UP

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        method: str = scope["method"]
        headers = {name.decode(): header(scope, name).decode("latin-1") for name in _PARENT}
        with self._traces.request(method, {k: v for k, v in headers.items() if v}) as trace:
            try:
                await self._app(scope, receive, send_and_note)
            finally:
                state = scope["state"]
                about = {
                    "http.request.method": method,
                    "overtone.request_id": state.get("request_id"),
                    "overtone.tenant": state.get("tenant") or None,
                }
                ended = HUNG_UP if state.get("is_gone") else status
                trace.answered(route_of(scope), ended, about)
