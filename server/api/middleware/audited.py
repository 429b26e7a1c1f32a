"""Changes of state over REST, for the audit log."""

from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.callers import Caller
from server.telemetry.audit import AuditLine, audit, outcome_of

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
#: Operations that answer and keep nothing.
_ANSWERING = "inference"


class Audited:
    """Writes a line for every request that may change something, before its answer is sent.

    Those are all operations but reading ones and those of inference. Routes put what they make into
    `request.state.made`; the rest of the object is in the path.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or scope["method"] in _READING:
            await self._app(scope, receive, send)
            return
        is_written = False

        def write(status: int | None) -> None:
            nonlocal is_written
            if not is_written and (line := _line(scope, status)):
                audit(line)
            is_written = True

        async def send_and_write(message: Message) -> None:
            if message["type"] == "http.response.start":
                write(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_and_write)
        finally:
            write(None)


def _line(scope: Scope, status: int | None) -> AuditLine | None:
    """Return what is to be written of a request; None for one that changes nothing."""
    route: Any = scope.get("route")
    if route is None or _ANSWERING in route.tags or scope["method"] not in route.methods:
        return None
    state, caller = scope["state"], scope["state"]["caller"]
    assert isinstance(caller, Caller)
    return AuditLine(
        action=route.operation_id,
        object=scope.get("path_params", {}) | state.get("made", {}),
        outcome=outcome_of(status),
        status=status,
        tenant=caller.tenant,
        key=caller.key,
        request_id=state["request_id"],
    )
