"""Training files over REST, in OpenAI's shapes: upload, list, show, content, delete.

A file is checked line by line when it arrives. One that cannot be trained on is kept all the same,
as OpenAI does it: its status is `error`, `status_details` names the lines, and a job on it fails.
"""

import asyncio
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel
from starlette.datastructures import FormData, UploadFile

from registry import FileNotFound, FileRecord, JobConflict
from registry.training_data.checks import check_lines
from server.api.bodies.files import DeletedFile, File, FilePage
from server.api.describe import ASKS_REGISTRY, INVALID, WRITES, Form, answer, describe, raw
from server.api.job_creation import own_file
from server.api.job_responses import file_object, page_object
from server.api.parameters import MAX_PAGE, After, FileId
from server.api.request import check_once, check_room, declared_size, service_of
from server.errors import InvalidRequest, UnsupportedParameter
from server.service import Service

router = APIRouter(tags=["files"])
T = TypeVar("T")

PURPOSE = "fine-tune"


class FileUpload(BaseModel):
    """A file to train on.

    Args:
        file: JSONL, CSV, or a zip of images with labels.
        purpose: what it is for.
    """

    file: bytes
    purpose: Literal["fine-tune"]


_UPLOAD = Form(FileUpload, {"file": "application/octet-stream"})
_FIELDS = set(FileUpload.model_fields)
_UNKNOWN = (*ASKS_REGISTRY, FileNotFound)


async def _call(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run a blocking call beside the event loop."""
    return await asyncio.to_thread(partial(function, *args, **kwargs))


@router.post(
    "/v1/files",
    **describe("createFile", answer(File), body=_UPLOAD, errors=(*WRITES, UnsupportedParameter)),
)
async def upload(request: Request) -> File:
    """Take a training file: JSONL, CSV, or a zip of images with labels."""
    service = service_of(request)
    await check_room(service, declared_size(request))
    async with request.form(max_files=4, max_fields=8) as form:
        file = _checked_form(form)
        record = await _call(_keep, service, file, request.state.tenant)
    return file_object(record)


@router.get(
    "/v1/files",
    **describe("listFiles", answer(FilePage), errors=(*_UNKNOWN, *INVALID, UnsupportedParameter)),
)
async def list_files(
    request: Request,
    limit: Annotated[
        int, Query(ge=1, le=10_000, description=f"Entries of the page; at most {MAX_PAGE} come.")
    ] = MAX_PAGE,
    after: After = None,
    purpose: Annotated[str | None, Query(description="All files are for `fine-tune`.")] = None,
    order: Annotated[str, Query(description="Only `desc` is supported.")] = "desc",
) -> dict[str, Any]:
    """List the caller's files, the newest first."""
    if order != "desc":
        raise UnsupportedParameter(f"order = {order[:80]!r}: only 'desc' is supported", "order")
    registry, size = service_of(request).registry, min(limit, MAX_PAGE)
    if purpose not in (None, PURPOSE):
        return page_object([], file_object, size)
    found = await _call(registry.files.list, size + 1, after, request.state.tenant)
    return page_object(found, file_object, size)


@router.get("/v1/files/{file_id}", **describe("getFile", answer(File), errors=_UNKNOWN))
async def show(request: Request, file_id: FileId) -> File:
    """Show a file and what its check found."""
    registry = service_of(request).registry
    return file_object(await _call(own_file, registry, file_id, request.state.tenant))


@router.get(
    "/v1/files/{file_id}/content",
    **describe("getFileContent", raw("application/octet-stream", "The file."), errors=_UNKNOWN),
)
async def content(request: Request, file_id: FileId) -> FileResponse:
    """Return the bytes as they were uploaded."""
    registry = service_of(request).registry
    record = await _call(own_file, registry, file_id, request.state.tenant)
    path = await _call(registry.files.open, file_id)
    return FileResponse(path, media_type="application/octet-stream", filename=record.filename)


@router.delete(
    "/v1/files/{file_id}",
    **describe("deleteFile", answer(DeletedFile), errors=(*_UNKNOWN, JobConflict)),
)
async def delete(request: Request, file_id: FileId) -> dict[str, Any]:
    """Delete a file that no unfinished job reads."""
    registry = service_of(request).registry
    await _call(own_file, registry, file_id, request.state.tenant)
    await _call(registry.files.delete, file_id)
    return {"id": file_id, "object": "file", "deleted": True}


def _checked_form(form: FormData) -> UploadFile:
    """Return the file of an upload after checking the other fields."""
    check_once(form)
    for name in sorted(set(form) - _FIELDS):
        raise UnsupportedParameter(f"field {name!r} is not supported for a training file", name)
    purpose, file = form.get("purpose"), form.get("file")
    if purpose != PURPOSE:
        shown = repr(purpose)[:80]
        raise InvalidRequest(f"purpose = {shown}: only {PURPOSE!r} is taken here", "purpose")
    if not isinstance(file, UploadFile):
        raise InvalidRequest("field 'file' is missing, or no file: give it a filename", "file")
    return file


def _keep(service: Service, upload: UploadFile, tenant: str) -> FileRecord:
    """Copy the upload into the store, check it there, and write its record last."""
    files = service.registry.files
    path = files.begin()
    try:
        with path.open("wb") as out:
            shutil.copyfileobj(upload.file, out, 1 << 20)
        return files.put(
            path,
            filename=_shown_name(upload.filename),
            purpose=PURPOSE,
            created_by=tenant,
            facts=_facts(path),
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


def _shown_name(name: str | None) -> str:
    """Return the last part of a filename, so that it is no path."""
    return (name or "").replace("\\", "/").rpartition("/")[2] or "file"
