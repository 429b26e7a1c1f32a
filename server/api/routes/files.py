"""Files over REST, in OpenAI's shapes: upload, list, show, content, delete.

Files to train on, and files of requests for batches, are checked line by line when they arrive. One
that cannot be used is kept all the same, as OpenAI does it: its status is `error`, `status_details`
names the lines, and a job or batch over it fails. Batches write files of results.
"""

import asyncio
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel
from starlette.datastructures import FormData, UploadFile

from registry import FileNotFound, FileRecord, JobConflict, QuotaExceeded
from registry.batches.requests import check_requests
from registry.training_data.checks import check_lines
from server.api.bodies.files import DeletedFile, File, FilePage
from server.api.describe import (
    ASKS_REGISTRY,
    INVALID,
    READS,
    TRAIN,
    UPLOAD,
    WRITES,
    Form,
    Scopes,
    answer,
    describe,
    raw,
)
from server.api.job_creation import own_file
from server.api.job_responses import file_object, page_object
from server.api.parameters import MAX_PAGE, After, FileId
from server.api.request import check_once, check_room, declared_size, service_of
from server.errors import InvalidRequest, PayloadTooLarge, UnsupportedParameter
from server.service import Service
from server.settings import Settings

router = APIRouter(tags=["files"])
T = TypeVar("T")

Purpose = Literal["fine-tune", "batch"]
_PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


class FileUpload(BaseModel):
    """A file to train on, or of requests for a batch.

    Args:
        file: to train on: JSONL, CSV, or a zip of images with labels. For a batch: JSONL.
        purpose: what it is for.
    """

    file: bytes
    purpose: Purpose


_UPLOAD = Form(FileUpload, {"file": "application/octet-stream"})
_FIELDS = set(FileUpload.model_fields)
_UNKNOWN = (*ASKS_REGISTRY, FileNotFound)
#: Files are for training, or for batches.
_KEEPS: Scopes = (*UPLOAD, *TRAIN)


async def _call(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run a blocking call beside the event loop."""
    return await asyncio.to_thread(partial(function, *args, **kwargs))


@router.post(
    "/v1/files",
    **describe(
        "createFile",
        answer(File),
        body=_UPLOAD,
        errors=(*WRITES, UnsupportedParameter, QuotaExceeded),
        scopes=_KEEPS,
    ),
)
async def upload(request: Request) -> File:
    """Take a file to train on, or of requests for a batch."""
    service = service_of(request)
    await check_room(service, declared_size(request))
    async with request.form(max_files=4, max_fields=8) as form:
        file, purpose = _checked_form(form)
        record = await _call(_keep, service, file, purpose, request.state.tenant)
    request.state.made = {"file_id": record.id}
    return file_object(record)


@router.get(
    "/v1/files",
    **describe(
        "listFiles",
        answer(FilePage),
        errors=(*_UNKNOWN, *INVALID, UnsupportedParameter),
        scopes=READS,
    ),
)
async def list_files(
    request: Request,
    limit: Annotated[
        int, Query(ge=1, le=10_000, description=f"Entries of the page; at most {MAX_PAGE} come.")
    ] = MAX_PAGE,
    after: After = None,
    purpose: Annotated[
        str | None, Query(description="Only files for it: `fine-tune`, `batch`, `batch_output`.")
    ] = None,
    order: Annotated[str, Query(description="Only `desc` is supported.")] = "desc",
) -> dict[str, Any]:
    """List the caller's files, the newest first."""
    if order != "desc":
        raise UnsupportedParameter(f"order = {order[:80]!r}: only 'desc' is supported", "order")
    registry, size = service_of(request).registry, min(limit, MAX_PAGE)
    found = await _call(registry.files.list, size + 1, after, request.state.tenant, purpose)
    return page_object(found, file_object, size)


@router.get(
    "/v1/files/{file_id}", **describe("getFile", answer(File), errors=_UNKNOWN, scopes=READS)
)
async def show(request: Request, file_id: FileId) -> File:
    """Show a file and what its check found."""
    registry = service_of(request).registry
    return file_object(await _call(own_file, registry, file_id, request.state.tenant))


@router.get(
    "/v1/files/{file_id}/content",
    **describe(
        "getFileContent",
        raw("application/octet-stream", "The file."),
        errors=_UNKNOWN,
        scopes=READS,
    ),
)
async def content(request: Request, file_id: FileId) -> FileResponse:
    """Return the bytes as they were uploaded."""
    registry = service_of(request).registry
    record = await _call(own_file, registry, file_id, request.state.tenant)
    path = await _call(registry.files.open, file_id)
    return FileResponse(path, media_type="application/octet-stream", filename=record.filename)


@router.delete(
    "/v1/files/{file_id}",
    **describe("deleteFile", answer(DeletedFile), errors=(*_UNKNOWN, JobConflict), scopes=_KEEPS),
)
async def delete(request: Request, file_id: FileId) -> dict[str, Any]:
    """Delete a file that no unfinished job or batch reads."""
    registry = service_of(request).registry
    await _call(own_file, registry, file_id, request.state.tenant)
    await _call(registry.files.delete, file_id)
    return {"id": file_id, "object": "file", "deleted": True}


def _checked_form(form: FormData) -> tuple[UploadFile, Purpose]:
    """Return the file of an upload and its purpose, after checking the other fields."""
    check_once(form)
    for name in sorted(set(form) - _FIELDS):
        raise UnsupportedParameter(f"field {name!r} is not supported for a file", name)
    given, file = form.get("purpose"), form.get("file")
    purpose = next((one for one in _PURPOSES if one == given), None)
    if purpose is None:
        taken = " or ".join(map(repr, _PURPOSES))
        raise InvalidRequest(f"purpose = {repr(given)[:80]}: {taken} is taken here", "purpose")
    if not isinstance(file, UploadFile):
        raise InvalidRequest("field 'file' is missing, or no file: give it a filename", "file")
    return file, purpose


def _keep(service: Service, upload: UploadFile, purpose: Purpose, tenant: str) -> FileRecord:
    """Copy the upload into the store, check it there, and write its record last."""
    files, settings = service.registry.files, service.settings
    files = files.within(service.tenant_limits.of(tenant))
    size, most = upload.size or 0, settings.max_batch_file_bytes
    if purpose == "batch" and size > most:
        raise PayloadTooLarge(f"the file has {size} bytes; a batch's may have {most}")
    path = files.begin()
    try:
        with path.open("wb") as out:
            shutil.copyfileobj(upload.file, out, 1 << 20)
        return files.put(
            path,
            filename=_shown_name(upload.filename),
            purpose=purpose,
            created_by=tenant,
            facts=_facts(path) if purpose == "fine-tune" else _facts_of_batch(path, settings),
            now=time.time(),
        )
    finally:
        path.unlink(missing_ok=True)


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        # `pause` releases the interpreter lock to the engine's thread between two steps.
        report = check_lines(file, pause=partial(time.sleep, 0))
    return {
        "kind": report.kind,
        "num_examples": report.num_examples,
        "forms": report.forms,
        "faults": [{"line": fault.line, "message": fault.message} for fault in report.faults],
        "shown": report.shown(),
    }


def _facts_of_batch(path: Path, settings: Settings) -> dict[str, Any]:
    with path.open("rb") as file:
        found = check_requests(file, settings.max_batch_requests, partial(time.sleep, 0))
    return {
        "kind": "batch",
        "num_requests": found.num_requests,
        "endpoint": found.endpoint,
        "faults": [asdict(fault) for fault in found.faults],
        "shown": found.shown(),
    }


def _shown_name(name: str | None) -> str:
    """Return the last part of a filename, so that it is no path."""
    return (name or "").replace("\\", "/").rpartition("/")[2] or "file"
