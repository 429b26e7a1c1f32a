"""What middleware reads of a request and sends without a route."""

import json

from starlette.types import Scope, Send

from server.errors import body_of, headers_of, status_of

#: Status of a request whose caller hung up before the answer's end.
HUNG_UP = 499


def header(scope: Scope, name: bytes) -> bytes:
    """Return a request's header by its name in small letters; empty if it is not there."""
    value: bytes = next((v for k, v in scope["headers"] if k == name), b"")
    return value


def route_of(scope: Scope) -> str:
    """Return the path's template, not the path: as many as there are routes."""
    path: str = getattr(scope.get("route"), "path", "unknown")
    return path.replace(":adapter}", "}")


async def send_error(send: Send, error: Exception) -> None:
    """Answer an error with its body of docs/api.md."""
    body = json.dumps(body_of(error)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += [(name.encode(), value.encode()) for name, value in headers_of(error).items()]
    status = status_of(error)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
