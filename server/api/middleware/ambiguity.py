"""Refuses what two readers of a request could understand differently, by its name.

A gateway may read the first of two values and this server the last: a key, a tenant or a limit that
one of them checked would not be the one that counts.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from urllib.parse import unquote_plus

from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.middleware.messages import send_error
from server.errors import InvalidRequest

#: Headers with one value, of those that this server reads.
_SINGLE = (
    *("authorization", "content-type", "if-match", "idempotency-key", "host", "origin"),
    "x-overtone-tenant",
)


class Unambiguous:
    """Refuses a query parameter that stands twice, and a header with two different values.

    A parameter whose name ends in `[]` is a list and may stand several times.

    Args:
        app: the application inside.
        headers: more headers with one value; empty names are passed over.
    """

    def __init__(self, app: ASGIApp, headers: Iterable[str] = ()) -> None:
        self._app = app
        self._single = {name.lower().encode() for name in (*_SINGLE, *headers) if name}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 400."""
        if scope["type"] == "http":
            for error in self._faults(scope):
                await send_error(send, error)
                return
        await self._app(scope, receive, send)

    def _faults(self, scope: Scope) -> Iterator[InvalidRequest]:
        name = _repeated(scope["query_string"])
        if name is not None:
            yield InvalidRequest(f"query parameter {name!r} stands twice; send it once", name)
        values: dict[bytes, bytes] = {}
        for header, value in scope["headers"]:
            if header in self._single and values.setdefault(header, value) != value:
                shown = header.decode().title()
                message = f"header {shown} is sent with two different values; send one"
                yield InvalidRequest(message, shown)


def _repeated(query: bytes) -> str | None:
    """Return the first name that stands twice in a query."""
    if b"&" not in query:
        return None
    names = [part.partition(b"=")[0] for part in query.split(b"&") if part]
    count = Counter(unquote_plus(name.decode("latin-1")) for name in names)
    twice = (name for name, times in count.items() if times > 1 and not name.endswith("[]"))
    return next((name[:80] for name in twice), None)
