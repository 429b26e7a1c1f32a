"""API keys over REST: made, listed, shown, rotated, revoked; for callers with the scope admin.

The first key of a registry can be made without one, on a server that asks for none: it must have
the scope admin, since requests need a key from then on.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse

from registry import KeyConflict, KeyNotFound
from registry.access.record import MAX_GRACE_S, KeyRecord
from registry.access.secret import Secret
from server.api.bodies.keys import ApiKey, ApiKeyPage, ApiKeyWithSecret
from server.api.callers import Caller
from server.api.describe import ADMIN, ASKS_REGISTRY, INVALID, WRITES, answer, describe
from server.api.job_responses import page_object
from server.api.key_schemas import KeyRequest, key_object, key_with_secret
from server.api.parameters import After, Limit
from server.api.request import check_room, json_body, service_of
from server.errors import InvalidRequest

router = APIRouter(tags=["keys"])
T = TypeVar("T")

_KEYS = "/v1/keys"
_UNKNOWN = (*ASKS_REGISTRY, KeyNotFound)
#: No cache between the server and its caller may keep a secret.
_SECRET = "Cache-Control"
KeyId = Annotated[str, Path(description="The key's id: 16 hex digits.")]


async def _call(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run a blocking registry call beside the event loop."""
    return await asyncio.to_thread(partial(function, *args, **kwargs))


@router.post(
    _KEYS,
    **describe(
        "createKey",
        answer(ApiKeyWithSecret, status=201, headers=(_SECRET,), description="A new key."),
        body=KeyRequest,
        errors=(*WRITES, KeyConflict),
        scopes=ADMIN,
    ),
)
async def create(request: Request) -> JSONResponse:
    """Make a key; its secret is shown in this answer and never again."""
    body, caller = await json_body(request, KeyRequest), request.state.caller
    _check_first(caller, body)
    service = service_of(request)
    await check_room(service)
    registry, is_first = service.registry, caller.key is None
    make = registry.api_keys.create
    made = await _call(make, body.new_key, now=time.time(), only_as_first=is_first)
    registry.key_mirror.note(made[0].id)
    request.state.made = {"key_id": made[0].id, "tenant": body.tenant, "scopes": body.scopes}
    return _shown(*made, status=201)


@router.get(
    _KEYS,
    **describe("listKeys", answer(ApiKeyPage), errors=(*_UNKNOWN, *INVALID), scopes=ADMIN),
)
async def list_keys(
    request: Request,
    limit: Limit = 20,
    after: After = None,
    tenant: Annotated[str | None, Query(description="Only keys of this tenant.")] = None,
) -> dict[str, Any]:
    """List the keys of all tenants, the newest first, but for those of the server's setting."""
    api_keys = service_of(request).registry.api_keys
    found = await _call(api_keys.list, limit + 1, after, tenant)
    return page_object(found, key_object, limit)


@router.get(
    _KEYS + "/{key_id}", **describe("getKey", answer(ApiKey), errors=_UNKNOWN, scopes=ADMIN)
)
async def show(request: Request, key_id: KeyId) -> ApiKey:
    """Show a key, without its secret."""
    return key_object(await _call(service_of(request).registry.api_keys.get, key_id))


@router.post(
    _KEYS + "/{key_id}/rotate",
    **describe(
        "rotateKey",
        answer(ApiKeyWithSecret, headers=(_SECRET,)),
        errors=(*_UNKNOWN, *WRITES, KeyConflict),
        scopes=ADMIN,
    ),
)
async def rotate(
    request: Request,
    key_id: KeyId,
    grace_s: Annotated[
        float,
        Query(ge=0, le=MAX_GRACE_S, description="Seconds for which the old secret stays valid."),
    ] = 0,
) -> JSONResponse:
    """Give a key a new secret, valid at once and shown in this answer only."""
    service = service_of(request)
    await check_room(service)
    registry = service.registry
    made = await _call(registry.api_keys.rotate, key_id, now=time.time(), grace_s=grace_s)
    registry.key_mirror.note(key_id)
    return _shown(*made)


@router.delete(
    _KEYS + "/{key_id}", **describe("revokeKey", answer(ApiKey), errors=_UNKNOWN, scopes=ADMIN)
)
async def revoke(request: Request, key_id: KeyId) -> ApiKey:
    """End a key for good, on all servers within a second; a second time nothing changes."""
    registry = service_of(request).registry
    record = await _call(registry.api_keys.revoke, key_id, now=time.time())
    registry.key_mirror.note(key_id)
    return key_object(record)


def _check_first(caller: Caller, body: KeyRequest) -> None:
    """Check that a key which is made without one can make others."""
    if caller.key is None and "admin" not in body.scopes:
        raise InvalidRequest(
            "the first key must have the scope admin: requests need a key from then on", "scopes"
        )


def _shown(record: KeyRecord, secret: Secret, status: int = 200) -> JSONResponse:
    headers = {_SECRET: "no-store"}
    return JSONResponse(key_with_secret(record, secret), status, headers)
