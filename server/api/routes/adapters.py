"""Adapters over REST: upload, list, show, versions, content, aliases, rollback, delete."""

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
    NameConflict,
    PreconditionFailed,
    Record,
    withdraw,
)
from server.api.adapter_upload import FORM, publish_upload, read_form
from server.api.answerer import HEADER, naming
from server.api.bodies.adapters import (
    Adapter,
    AdapterPage,
    AdapterVersions,
    DeletedAdapter,
    MovedAlias,
)
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
from server.service import Service

router = APIRouter(tags=["adapters"])
T = TypeVar("T")


_UNKNOWN = (*ASKS_REGISTRY, *INVALID, AdapterNotFound)


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
        errors=(*WRITES, *READS_ADAPTER, BaseMismatch, NameConflict),
        scopes=UPLOAD,
    ),
)
async def upload(request: Request) -> Response:
    """Take a coefficient file with its config; servable as soon as this answers."""
    service = service_of(request)
    await check_room(service, declared_size(request))
    with tempfile.TemporaryDirectory(prefix="overtone-upload-") as folder:
        async with request.form(max_files=4, max_fields=8, max_part_size=MAX_CONFIG_BYTES) as form:
            fields = await read_form(form, Path(folder))
        request.state.made = {"name": fields["name"]}
        record, created = await _call(publish_upload, service, Path(folder), **fields)
        service.registry.directory.forget(record.name)
        entry = await _call(service.registry.adapters.get, record.name)
    request.state.made["version"] = record.version
    return JSONResponse(_body(service, record, entry), 201 if created else 200)


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
    service = service_of(request)
    adapters = service.registry.adapters
    entries = await _call(adapters.list, limit + 1, after, method, prefix)
    page = entries[:limit]
    return {
        "object": "list",
        "data": [_body(service, entry.latest, entry) for entry in page],
        "has_more": len(entries) > limit,
        "first_id": page[0].name if page else None,
        "last_id": page[-1].name if page else None,
    }


@router.get(
    "/v1/adapters/{name:adapter}",
    **describe("getAdapter", answer(Adapter), errors=_UNKNOWN, scopes=READS),
)
async def show(request: Request, name: AdapterName) -> Adapter:
    """Show the latest version and all aliases."""
    service = service_of(request)
    entry = await _call(service.registry.adapters.get, name)
    return _body(service, entry.latest, entry)


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
    service = service_of(request)
    entry = await _call(service.registry.adapters.get, name)
    read = partial(_versions, service, entry)
    return await paged(read, limit, None if after is None else str(after))


def _versions(service: Service, entry: AdapterEntry, limit: int, after: str | None) -> Page:
    found = service.registry.adapters.versions(entry.name, limit + 1, int(after or 0))
    data = [_body(service, record, entry) for record in found[:limit]]
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
        errors=_UNKNOWN,
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
    """Give the bytes back: the coefficient file, or with `?part=config` its config."""
    service = service_of(request)
    record = await _call(service.registry.adapters.resolve, f"{name}@{version}")
    blob = await _call(service.registry.blobs.open_whole, record.digest)
    headers = naming(record)
    if part == "config":
        return FileResponse(blob.config, media_type="application/json", headers=headers)
    return FileResponse(blob.file, media_type="application/octet-stream", headers=headers)


@router.put(
    "/v1/adapters/{name:adapter}/aliases/{alias}",
    **describe(
        "moveAlias",
        answer(MovedAlias, headers=("ETag",)),
        body=AliasRequest,
        errors=(*WRITES, AdapterNotFound, PreconditionFailed),
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
    etag = await _call(move, name, alias, body.version, if_match)
    service.registry.directory.forget(name)
    moved = {"object": "alias", "name": name, "alias": alias, "version": body.version}
    return JSONResponse(moved, headers={"ETag": etag})


@router.post(
    "/v1/adapters/{name:adapter}/rollback",
    **describe(
        "rollbackAdapter", answer(Adapter), errors=(*WRITES, *_UNKNOWN, NameConflict), scopes=UPLOAD
    ),
)
async def rollback(request: Request, name: AdapterName) -> Adapter:
    """Make the version before the latest the latest again."""
    service = service_of(request)
    await check_room(service)
    record = await _call(service.registry.adapters.rollback, name)
    service.registry.directory.forget(name)
    return _body(service, record, await _call(service.registry.adapters.get, name))


@router.delete(
    "/v1/adapters/{name:adapter}",
    **describe("deleteAdapter", answer(DeletedAdapter), errors=_UNKNOWN, scopes=UPLOAD),
)
async def delete(request: Request, name: AdapterName) -> dict[str, Any]:
    """Delete an adapter; running requests finish on it, new ones get 404."""
    return await _delete(service_of(request), name, None)


@router.delete(
    "/v1/adapters/{name:adapter}/versions/{version}",
    **describe(
        "deleteAdapterVersion",
        answer(DeletedAdapter),
        errors=(*_UNKNOWN, AdapterInUse),
        scopes=UPLOAD,
    ),
)
async def delete_version(
    request: Request, name: AdapterName, version: AdapterVersion
) -> dict[str, Any]:
    """Delete one version."""
    return await _delete(service_of(request), name, version)


async def _delete(service: Service, name: str, version: int | None) -> dict[str, Any]:
    registry = service.registry
    await _call(withdraw, registry.adapters, registry.blobs, name, version)
    registry.directory.forget(name)
    if version is None:
        service.pins.remove(name)
    await _call(service.pins.drop_dead, registry.adapters.digest_is_live)
    return {"object": "adapter.deleted", "name": name, "version": version, "deleted": True}


def _body(service: Service, record: Record, entry: AdapterEntry) -> Adapter:
    """Return a record as the API shows it."""
    return {
        "object": "adapter",
        "name": record.name,
        "version": record.version,
        "digest": record.digest,
        "method": record.description.method,
        "method_config": record.description.method_config,
        "base": {
            "name": record.description.base_name,
            "fingerprint": record.description.base_fingerprint,
            "verified": record.description.base_verified,
        },
        "target_modules": list(record.description.target_modules),
        "num_coefficients": record.description.num_coefficients,
        "size_bytes": record.description.size_bytes,
        "created_at": record.created_at,
        "created_by": record.created_by,
        "aliases": entry.aliases,
        "metadata": record.metadata,
        "metrics": record.metrics,
        "residency": service.loader.memory.modes_of(record.digest),
    }
