"""OpenAI's batch API: batches of requests over uploaded files.

A tenant sees its own batches only. Servers read from the registry what these routes write
(server/batches).
"""

import asyncio
import time
from typing import Any

from fastapi import APIRouter, Request

from registry import BatchNotFound, BatchRecord, FileNotFound, JobConflict
from server.api.batch_creation import create_batch
from server.api.batch_responses import batch_object
from server.api.batch_schemas import BatchCreation
from server.api.bodies.batches import Batch, BatchPage
from server.api.describe import ASKS_REGISTRY, INFER, INVALID, WRITES, answer, describe
from server.api.job_responses import page_object
from server.api.parameters import After, BatchId, Limit
from server.api.request import check_room, json_body, service_of
from server.errors import Overloaded, UnsupportedParameter

router = APIRouter(tags=["batches"])

_BATCHES = "/v1/batches"
_UNKNOWN = (*ASKS_REGISTRY, BatchNotFound)


@router.post(
    _BATCHES,
    **describe(
        "createBatch",
        answer(Batch),
        body=BatchCreation,
        errors=(*WRITES, UnsupportedParameter, FileNotFound, Overloaded),
        scopes=INFER,
    ),
)
async def create(request: Request) -> Batch:
    """Run the requests of an uploaded file, in the room that other requests leave."""
    body = await json_body(request, BatchCreation)
    service = service_of(request)
    await check_room(service)
    record = await asyncio.to_thread(create_batch, service, body, request.state.caller)
    request.state.made = {"batch_id": record.id}
    request.app.state.wake_batches()
    return batch_object(record)


@router.get(
    _BATCHES,
    **describe("listBatches", answer(BatchPage), errors=(*_UNKNOWN, *INVALID), scopes=INFER),
)
async def list_batches(request: Request, limit: Limit = 20, after: After = None) -> dict[str, Any]:
    """List the caller's batches, the newest first."""
    batches = service_of(request).registry.batches
    tenant = request.state.tenant
    found = await asyncio.to_thread(batches.list, limit + 1, after, tenant)
    return page_object(found, batch_object, limit)


@router.get(
    _BATCHES + "/{batch_id}", **describe("getBatch", answer(Batch), errors=_UNKNOWN, scopes=INFER)
)
async def show(request: Request, batch_id: BatchId) -> Batch:
    """Show a batch as it stands."""
    return batch_object(await _own(request, batch_id))


@router.post(
    _BATCHES + "/{batch_id}/cancel",
    **describe("cancelBatch", answer(Batch), errors=(*_UNKNOWN, JobConflict), scopes=INFER),
)
async def cancel(request: Request, batch_id: BatchId) -> Batch:
    """Stop a batch; what is answered by then is in its files when it is `cancelled`."""
    record = await _own(request, batch_id)
    batches = service_of(request).registry.batches
    cancelled = await asyncio.to_thread(lambda: batches.cancel(record.id, now=time.time()))
    request.app.state.wake_batches()
    return batch_object(cancelled)


async def _own(request: Request, batch_id: str) -> BatchRecord:
    """Return a batch of the caller's tenant; those of other tenants are not found."""
    batches = service_of(request).registry.batches
    record = await asyncio.to_thread(batches.get, batch_id)
    if record.spec.created_by != request.state.tenant:
        raise BatchNotFound(f"no batch {batch_id!r}")
    return record
