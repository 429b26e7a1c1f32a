"""Adapters over REST: upload, list, show, versions, content, aliases, sharing, rollback, delete.

A tenant names its own adapters, the operators', and those that are shared with it as `OWNER:NAME`
(registry/adapters/view.py); it changes its own alone.
"""

import asyncio
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi import Path as Path_
from fastapi.responses import FileResponse, JSONResponse

from adapters_core.contract.peft_config import MAX_CONFIG_BYTES
from adapters_core.errors import BaseMismatch
from registry import (
    AdapterEntry,
    AdapterInUse,
    AdapterNotFound,
    AdapterView,
    NameConflict,
    NotOwner,
    PreconditionFailed,
    QuotaExceeded,
    Record,
    Reference,
    withdraw,
)
from registry.common.spaces import OPERATORS
from server.api.adapter_responses import adapter_object
from server.api.adapter_upload import FORM, check_sharing, publish_upload, read_form
from server.api.answerer import HEADER, naming
from server.api.bodies.adapters import (
    Adapter,
    AdapterPage,
    AdapterVersions,
    DeletedAdapter,
    MovedAlias,
)
from server.api.callers import Caller
from server.api.completion_schemas import AliasRequest
from server.api.describe import (
    ASKS_REGISTRY,
    INVALID,
    READS,
    READS_ADAPTER,
    UPLOAD,
    WRITES,
    Answer,
    answer,
    describe,
    raw,
)
from server.api.pages import Page, paged
from server.api.parameters import AdapterName, AdapterVersion, After, Limit, MaybeLimit
from server.api.request import check_room, declared_size, json_body, service_of
from server.api.sharing_schemas import SharingRequest

router = APIRouter(tags=["adapters"])
T = TypeVar("T")


_UNKNOWN = (*ASKS_REGISTRY, *INVALID, AdapterNotFound)
_CHANGES = (*_UNKNOWN, NotOwner)


async def _call(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run a blocking registry call beside the event loop."""
    return await asyncio.to_thread(partial(function, *args, **kwargs))


@router.post(
    "/v1/adapters",
    **describe(
        "createAdapter",
        answer(Adapter, status=201, description="A new version."),
        answer(Adapter, description="These bytes are a version of this name already."),
        body=FORM,
        errors=(
            *WRITES,
            *READS_ADAPTER,
            BaseMismatch,
            NameConflict,
            AdapterNotFound,
            NotOwner,
            QuotaExceeded,
        ),
        scopes=UPLOAD,
    ),
)
async def upload(request: Request) -> Response:
    """Take a coefficient file with its config; servable as soon as this answers."""
    service = service_of(request)
    await check_room(service, declared_size(request))
    with tempfile.TemporaryDirectory(prefix="overtone-upload-") as folder:
        async with request.form(max_files=4, max_fields=8, max_part_size=MAX_CONFIG_BYTES) as form:
            given = await read_form(form, Path(folder))
        request.state.made = {"name": given.name}
        caller: Caller = request.state.caller
        record, created = await _call(publish_upload, service, caller, Path(folder), given)
        service.registry.directory.forget(record.name)
        entry = await _call(service.registry.adapters.get, record.name)
    request.state.made["version"] = record.version
    body = adapter_object(service, caller, record, entry)
    return JSONResponse(body, 201 if created else 200)


@router.get(
    "/v1/adapters",
    **describe(
        "listAdapters", answer(AdapterPage), errors=(*ASKS_REGISTRY, *INVALID), scopes=READS
    ),
)
async def list_adapters(
    request: Request,
    limit: Limit = 20,
    after: After = None,
    method: Annotated[str | None, Query(description="Only adapters of this method.")] = None,
    prefix: Annotated[str | None, Query(description="Only names that begin so.")] = None,
) -> dict[str, Any]:
    """List the latest version of each adapter, page by page in the order of their names."""
    view = _view(request)
    entries = await _call(view.list, limit + 1, after, method, prefix)
    page = entries[:limit]
    return {
        "object": "list",
        "data": [_body(request, entry.latest, entry) for entry in page],
        "has_more": len(entries) > limit,
        "first_id": view.shown(page[0].name) if page else None,
        "last_id": view.shown(page[-1].name) if page else None,
    }


@router.get(
    "/v1/adapters/{name:adapter}",
    **describe("getAdapter", answer(Adapter), errors=_UNKNOWN, scopes=READS),
)
async def show(request: Request, name: AdapterName) -> Adapter:
    """Show the latest version and all aliases."""
    entry = await _call(_view(request).get, name)
    return _body(request, entry.latest, entry)


@router.get(
    "/v1/adapters/{name:adapter}/versions",
    **describe("listAdapterVersions", answer(AdapterVersions), errors=_UNKNOWN, scopes=READS),
)
async def versions(
    request: Request,
    name: AdapterName,
    limit: MaybeLimit = None,
    after: Annotated[
        int | None, Query(ge=0, lt=1 << 31, description="Only versions after this one.")
    ] = None,
) -> Response:
    """List the versions, the oldest first: all, or page by page."""
    entry = await _call(_view(request).get, name)
    read = partial(_versions, request, entry)
    return await paged(read, limit, None if after is None else str(after))


def _versions(request: Request, entry: AdapterEntry, limit: int, after: str | None) -> Page:
    adapters = service_of(request).registry.adapters
    found = adapters.versions(entry.name, limit + 1, int(after or 0))
    data = [_body(request, record, entry) for record in found[:limit]]
    ids = (str(found[0].version), str(found[:limit][-1].version)) if found else None
    return Page(data, ids, len(found) > limit)


@router.get(
    "/v1/adapters/{name:adapter}/versions/{version}/content",
    **describe(
        "getAdapterContent",
        Answer(
            raw("application/octet-stream", "").content | answer(dict[str, Any]).content,
            headers=(HEADER,),
            description="The safetensors file, or the config.",
        ),
        errors=_CHANGES,
        scopes=READS,
    ),
)
async def content(
    request: Request,
    name: AdapterName,
    version: AdapterVersion,
    part: Annotated[
        Literal["file", "config"], Query(description="Which of the two files.")
    ] = "file",
) -> Response:
    """Give the bytes back to the owner: the coefficient file, or with `?part=config` its config."""
    registry = service_of(request).registry

    def read(stored: str) -> Record:
        return registry.adapters.resolve(Reference(stored, "version", str(version)))

    record = await _call(_view(request).change, name, read)
    blob = await _call(registry.blobs.open_whole, record.digest)
    headers = naming(record, request.state.caller.space)
    if part == "config":
        return FileResponse(blob.config, media_type="application/json", headers=headers)
    return FileResponse(blob.file, media_type="application/octet-stream", headers=headers)


@router.put(
    "/v1/adapters/{name:adapter}/aliases/{alias}",
    **describe(
        "moveAlias",
        answer(MovedAlias, headers=("ETag",)),
        body=AliasRequest,
        errors=(*WRITES, *_CHANGES, PreconditionFailed),
        scopes=UPLOAD,
    ),
)
async def move_alias(
    request: Request,
    name: AdapterName,
    alias: Annotated[str, Path_(description="The alias; made if it is not there.")],
    if_match: Annotated[
        str | None, Header(description='The ETag of the alias\'s last answer, or `"VERSION"`.')
    ] = None,
) -> Response:
    """Point an alias to a version; with If-Match only if it was not moved meanwhile."""
    service = service_of(request)
    body = await json_body(request, AliasRequest)
    request.state.made = {"version": body.version}
    await check_room(service)
    move = service.registry.adapters.move_alias
    etag = await _call(_view(request).change, name, move, alias, body.version, if_match)
    _forget(request, name)
    moved = {"object": "alias", "name": name, "alias": alias, "version": body.version}
    return JSONResponse(moved, headers={"ETag": etag})


@router.post(
    "/v1/adapters/{name:adapter}/rollback",
    **describe(
        "rollbackAdapter", answer(Adapter), errors=(*WRITES, *_CHANGES, NameConflict), scopes=UPLOAD
    ),
)
async def rollback(request: Request, name: AdapterName) -> Adapter:
    """Make the version before the latest the latest again."""
    adapters = service_of(request).registry.adapters
    await check_room(service_of(request))
    record = await _call(_view(request).change, name, adapters.rollback)
    _forget(request, name)
    return _body(request, record, await _call(adapters.get, record.name))


@router.patch(
    "/v1/adapters/{name:adapter}",
    **describe(
        "shareAdapter",
        answer(Adapter),
        body=SharingRequest,
        errors=(*WRITES, *_CHANGES),
        scopes=UPLOAD,
    ),
)
async def share(request: Request, name: AdapterName) -> Adapter:
    """Say which other tenants may use an adapter; they cannot change it, nor read its files."""
    body = await json_body(request, SharingRequest)
    if body.shared is not None:
        check_sharing(request.state.caller, body.shared)
    request.state.made = {"shared": body.shared, "shared_with": body.shared_with}
    adapters = service_of(request).registry.adapters
    await check_room(service_of(request))

    def change(stored: str) -> AdapterEntry:
        before = adapters.get(stored).sharing
        if request.state.caller.space != OPERATORS:
            adapters.share(stored, body.changed(before))
        return adapters.get(stored)

    entry = await _call(_view(request).change, name, change)
    _forget(request, name)
    return _body(request, entry.latest, entry)


@router.delete(
    "/v1/adapters/{name:adapter}",
    **describe("deleteAdapter", answer(DeletedAdapter), errors=_CHANGES, scopes=UPLOAD),
)
async def delete(request: Request, name: AdapterName) -> dict[str, Any]:
    """Delete an adapter; running requests finish on it, new ones get 404."""
    return await _delete(request, name, None)


@router.delete(
    "/v1/adapters/{name:adapter}/versions/{version}",
    **describe(
        "deleteAdapterVersion",
        answer(DeletedAdapter),
        errors=(*_CHANGES, AdapterInUse),
        scopes=UPLOAD,
    ),
)
async def delete_version(
    request: Request, name: AdapterName, version: AdapterVersion
) -> dict[str, Any]:
    """Delete one version."""
    return await _delete(request, name, version)


async def _delete(request: Request, name: str, version: int | None) -> dict[str, Any]:
    service, view = service_of(request), _view(request)
    registry = service.registry

    def remove(stored: str) -> str:
        withdraw(registry.adapters, registry.blobs, stored, version)
        return stored

    stored = await _call(view.change, name, remove)
    registry.directory.forget(stored)
    if version is None:
        service.pins.remove(stored)
    await _call(service.pins.drop_dead, registry.adapters.digest_is_live)
    return {"object": "adapter.deleted", "name": name, "version": version, "deleted": True}


def _view(request: Request) -> AdapterView:
    """Return the adapters as the caller names them."""
    return service_of(request).registry.adapters_of(request.state.caller.space)


def _forget(request: Request, name: str) -> None:
    """Have the next request see what this one has changed."""
    service_of(request).registry.directory.forget(_view(request).own(name))


def _body(request: Request, record: Record, entry: AdapterEntry) -> Adapter:
    return adapter_object(service_of(request), request.state.caller, record, entry)
