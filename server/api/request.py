"""What all routes use: the running service, a checked JSON body, the log of unexpected errors."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel
from starlette.datastructures import FormData
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from adapters_core.strict_json import UnclearJson, strict_json
from server.api.json_answer import beside, one_line
from server.api.validation import checked
from server.errors import (
    FAMILIES,
    Draining,
    InvalidRequest,
    NotReady,
    StorageFull,
    UnsupportedMediaType,
    body_of,
)
from server.service import Service

_LOG = logging.getLogger("overtone")
M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

#: Of a body, for a value in it; a long text takes less time than so many values.
_BYTES_A_VALUE = 16


def service_of(request: Request) -> Service:
    """Return the running service.

    Raises:
        NotReady: the base is still loading, or cannot be served; the message says which.
        Draining: the server is going down.
    """
    state = request.app.state
    if state.draining:
        raise Draining("the server is going down; send the request to another one")
    if state.service is None:
        raise NotReady(state.why_not_ready())
    service: Service = state.service
    return service


async def check_room(service: Service, size_bytes: int = 0) -> None:
    """Check that the disk has room for a request and that the reserve stays free after it.

    Raises:
        StorageFull: it would not; deletions need no such check.
    """
    reserve = service.settings.reserve_bytes
    free = await asyncio.to_thread(service.registry.free_bytes)
    if free < size_bytes + reserve:
        raise StorageFull(
            f"the server's disk has {free} bytes free and keeps {reserve} of them; the request "
            f"brings {size_bytes}: delete what is not needed, or ask the server's operator for room"
        )


def declared_size(request: Request) -> int:
    """Return the size of a body as its header declares it, 0 without one."""
    given = request.headers.get("content-length", "0")
    return int(given) if given.isdecimal() else 0


async def json_body(request: Request, model: type[M]) -> M:
    """Return the request's body as `model`.

    Raises:
        InvalidRequest: not JSON, or a field is wrong; `param` is its whole path.
    """
    return await checked_body(request, lambda given: checked(model, given))


async def checked_body(request: Request, check: Callable[[Any], T]) -> T:
    """Return what `check` makes of the request's body; a long one is read beside the event loop.

    Raises:
        InvalidRequest: it is not JSON.
        UnsupportedMediaType: it does not say that it is JSON, and the server has no keys.
    """
    _check_type(request)
    body = await request.body()
    return await beside(len(body) // _BYTES_A_VALUE, lambda: check(_parsed(body)))


def _parsed(body: bytes) -> Any:
    try:
        return strict_json(body)
    except UnclearJson as error:
        raise InvalidRequest(f"the body {error}", error.key) from error


def check_once(form: FormData) -> None:
    """Check that no field stands twice in a form.

    Raises:
        InvalidRequest: one does; `param` names it.
    """
    count = Counter(name for name, _ in form.multi_items())
    for name, times in count.items():
        if times > 1:
            shown = name[:80]
            message = f"field {shown!r} stands {times} times in the form; send it once"
            raise InvalidRequest(message, shown)


def _check_type(request: Request) -> None:
    """Refuse what a page of another site can send without asking: a text, or a form."""
    given = request.headers.get("content-type", "")
    media_type = given.partition(";")[0].strip().lower()
    is_json = media_type == "application/json" or media_type.endswith("+json")
    if not is_json and request.app.state.authentication.is_open:
        raise UnsupportedMediaType(
            f"Content-Type = {given[:80]!r}: send JSON as application/json, as curl does with "
            "-H 'Content-Type: application/json'"
        )


def event_line(body: Mapping[str, Any]) -> str:
    """Return a server-sent event with a JSON object."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return f"data: {one_line(text)}\n\n"


def error_body(request: Request, error: Exception) -> dict[str, Any]:
    """Return an error's body; one of no known family, a fault of this program, is logged."""
    if not isinstance(error, FAMILIES):
        _LOG.error("request %s failed", request.state.request_id, exc_info=error)
    return dict(body_of(error))


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Return the result of `work`, or cancel it as soon as the caller has hung up.

    Raises:
        ClientDisconnect: it has; nothing is answered, and the request counts as 499.
    """
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(gone(request.receive))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for future in (task, leaving):
            future.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


async def gone(receive: Receive) -> None:
    """Return when the caller has hung up; the request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
