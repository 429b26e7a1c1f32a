"""What is in memory: load an adapter before its first request, pin it, unpin it."""

import asyncio
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from registry import AdapterNotFound, Record
from registry.common.spaces import shown_in
from server.adapters.modes import Mode
from server.adapters.residency import Entry
from server.api.answerer import resolve
from server.api.bodies.adapters import Residency, Unpinned
from server.api.describe import ADMIN, INFER, INVALID, LOADS, RESOLVES, answer, describe
from server.api.parameters import ModelName
from server.api.request import service_of
from server.errors import PinLimit
from server.service import Service

router = APIRouter(tags=["residency"])

_WAIT_S = 60.0

ModeQuery = Annotated[
    Mode | None, Query(description="Missing: the mode that a request would get now.")
]
Wait = Annotated[float, Query(ge=0, le=600, description="Seconds to wait for the load.")]

_SOONER_OR_LATER = (
    answer(Residency),
    answer(Residency, status=202, description="It goes on loading."),
)
_ERRORS = (*LOADS, *INVALID)


@router.post(
    "/v1/adapters/{name:adapter}/warm",
    **describe("warmAdapter", *_SOONER_OR_LATER, errors=_ERRORS, scopes=INFER),
)
async def warm(
    request: Request, name: ModelName, mode: ModeQuery = None, timeout_s: Wait = _WAIT_S
) -> Response:
    """Load an adapter before its first request; 202 if that takes longer than `timeout_s`."""
    service = service_of(request)
    record = await _record(request, name)
    entry = service.loader.acquire(record.digest, mode or service.mode_of(record.digest))
    try:
        is_done = await _done(service, entry, timeout_s)
    finally:
        service.loader.release(entry)
    return JSONResponse(_body(request, record), 200 if is_done else 202)


@router.put(
    "/v1/adapters/{name:adapter}/pin",
    **describe("pinAdapter", *_SOONER_OR_LATER, errors=_ERRORS, scopes=ADMIN),
)
async def pin(
    request: Request, name: ModelName, mode: ModeQuery = None, timeout_s: Wait = _WAIT_S
) -> Response:
    """Load an adapter and keep it in memory; 202 if it is not loaded, and not pinned, in time."""
    service = service_of(request)
    record = await _record(request, name)
    entry = service.loader.acquire(record.digest, mode or service.mode_of(record.digest))
    try:
        is_done = await _done(service, entry, timeout_s)
        if is_done:
            await asyncio.to_thread(_pin, service, record.name, entry)
    finally:
        service.loader.release(entry)
    return JSONResponse(_body(request, record), 200 if is_done else 202)


@router.delete(
    "/v1/adapters/{name:adapter}/pin",
    **describe("unpinAdapter", answer(Residency | Unpinned), errors=RESOLVES, scopes=ADMIN),
)
async def unpin(request: Request, name: ModelName) -> Residency | Unpinned:
    """Allow that an adapter is evicted again; of no effect if it is not pinned."""
    service = service_of(request)
    view = service.registry.adapters_of(request.state.caller.space)
    for stored in await asyncio.to_thread(view.meanings, name):
        if service.pins.remove(stored):
            return {"object": "adapter.residency", "name": view.shown(stored), "pinned": False}
    record = await _record(request, name)
    return _body(request, record)


def _pin(service: Service, name: str, entry: Entry) -> None:
    """Pin an entry; where the limit is reached, pins of deleted adapters are removed first."""
    try:
        service.pins.set(name, entry)
    except PinLimit:
        if not service.pins.drop_dead(service.registry.adapters.digest_is_live):
            raise
        service.pins.set(name, entry)


async def _record(request: Request, name: str) -> Record:
    space = request.state.caller.space
    answerer = await asyncio.to_thread(resolve, service_of(request), name, space)
    if answerer.record is None:
        raise AdapterNotFound(f"{name!r} is the base itself; it is always in memory")
    return answerer.record


async def _done(service: Service, entry: Entry, timeout_s: float) -> bool:
    """Wait until an entry is ready; return whether it is in time. No thread waits.

    Raises:
        Exception: why it could not be loaded.
    """
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        with suppress(RuntimeError):  # the server has ended meanwhile
            loop.call_soon_threadsafe(done.set)

    service.loader.when_done(entry, tell)
    try:
        await asyncio.wait_for(done.wait(), timeout_s)
    except TimeoutError:
        return False
    if entry.error is not None:
        raise entry.error
    return True


def _body(request: Request, record: Record) -> Residency:
    service = service_of(request)
    return {
        "object": "adapter.residency",
        "name": shown_in(request.state.caller.space, record.name),
        "version": record.version,
        "digest": record.digest,
        "residency": service.loader.memory.modes_of(record.digest),
        "pinned": service.pins.digest_of(record.name) == record.digest,
    }
