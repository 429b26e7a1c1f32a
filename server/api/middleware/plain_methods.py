"""HEAD and OPTIONS, for all routes alike."""

from starlette.applications import Starlette
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")


class PlainMethods:
    """Answers HEAD as GET without its body, and OPTIONS with the methods that a path takes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        method = scope.get("method")
        if method == "HEAD":
            await self._head(scope, receive, send)
        elif method == "OPTIONS" and (allowed := allowed_methods(scope)):
            headers = [(b"allow", ", ".join(allowed).encode())]
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self._app(scope, receive, send)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the route answer as to GET; what it sends after the head is dropped."""

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope["method"] = "HEAD"
                await send(message)
                # The answer is complete: a stream hears that its caller has gone.
                await send({"type": "http.response.body", "body": b""})

        scope["method"] = "GET"
        await self._app(scope, receive, send_head)


def allowed_methods(scope: Scope) -> list[str]:
    """Return the methods that a path takes, by name; empty if there is no such path."""
    app: Starlette = scope["app"]
    if scope["path"] == "*":  # the server as a whole
        return sorted({*_METHODS, "HEAD", "OPTIONS"})
    asked = [{**scope, "method": method} for method in _METHODS]
    found = {
        one["method"]
        for one in asked
        if any(route.matches(one)[0] is Match.FULL for route in app.routes)
    }
    if not found:
        return []
    return sorted(found | {"OPTIONS"} | ({"HEAD"} if "GET" in found else set()))
