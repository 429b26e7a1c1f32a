"""An adapter that is posted as a form: read, checked against the base, published."""

import asyncio
import hashlib
import shutil
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from starlette.datastructures import FormData, UploadFile

from adapters_core.contract.peft_config import MAX_CONFIG_BYTES
from adapters_core.contract.safetensors_header import DEFAULT_MAX_FILE_BYTES
from adapters_core.strict_json import UnclearJson, strict_json
from registry import NewVersion, Record, publish
from server.api.content_digest import check_content_digest
from server.api.describe import Form
from server.api.request import check_once
from server.encoding.labels import with_labels
from server.errors import InvalidRequest
from server.service import Service


class AdapterUpload(BaseModel):
    """An adapter to publish.

    Args:
        name: the adapter's name; a known one gets a new version.
        file: adapter_model.safetensors.
        config: adapter_config.json; PEFT's own works unchanged.
        alias: points to this version afterwards.
        metadata: a JSON object that is kept with the version.
    """

    name: str
    file: bytes
    config: bytes
    alias: str | None = None
    metadata: str | None = None


FORM = Form(
    AdapterUpload,
    {
        "file": "application/octet-stream",
        "config": "application/json",
        "metadata": "application/json",
    },
    {"file": {"Content-Digest": "`sha-256=:BASE64:` of the file (RFC 9530); checked if sent."}},
)
_FIELDS = set(AdapterUpload.model_fields)
_REQUIRED = [name for name, field in AdapterUpload.model_fields.items() if field.is_required()]


async def read_form(form: FormData, folder: Path) -> dict[str, Any]:
    """Check a multipart form, lay its file into `folder`, and return the other fields."""
    check_once(form)
    unknown = sorted(set(form) - _FIELDS)
    if unknown:
        raise InvalidRequest(f"unknown field {unknown[0]!r} in the upload", unknown[0])
    for name in _REQUIRED:
        if name not in form:
            raise InvalidRequest(f"the upload has no field {name!r}", name)
    file = form["file"]
    if not isinstance(file, UploadFile):
        raise InvalidRequest("field 'file' is no file: give it a filename", "file")
    await asyncio.to_thread(_save, file, folder / "file")
    return {
        "name": _text(form, "name"),
        "alias": _text(form, "alias") if "alias" in form else None,
        "config": await _bytes(form["config"]),
        "metadata": _metadata(await _bytes(form["metadata"])) if "metadata" in form else {},
    }


def _save(upload: UploadFile, place: Path) -> None:
    with place.open("wb") as out:
        shutil.copyfileobj(upload.file, out)
    given = ",".join(upload.headers.getlist("content-digest"))
    if given:
        with place.open("rb") as file:
            check_content_digest(given, hashlib.file_digest(file, "sha256").digest())


def _text(form: FormData, name: str) -> str:
    value = form[name]
    if not isinstance(value, str):
        raise InvalidRequest(f"field {name!r} is a file; a text is expected", name)
    return value


async def _bytes(value: UploadFile | str) -> bytes:
    if isinstance(value, str):
        return value.encode()
    return await value.read(MAX_CONFIG_BYTES + 1)


def _metadata(data: bytes) -> dict[str, Any]:
    try:
        metadata = strict_json(data)
    except UnclearJson as error:
        raise InvalidRequest(f"metadata {error}", "metadata") from error
    if not isinstance(metadata, dict):
        raise InvalidRequest("metadata is not a JSON object", "metadata")
    return metadata


def publish_upload(
    service: Service,
    folder: Path,
    name: str,
    alias: str | None,
    config: bytes,
    metadata: dict[str, Any],
) -> tuple[Record, bool]:
    """Check the file against the base and publish it: blob first, record last."""
    if name == service.base.spec.name:
        raise InvalidRequest(f"{name!r} is the base's own name", "name")
    limit = min(service.settings.max_upload_bytes, DEFAULT_MAX_FILE_BYTES)
    adapter = service.resident.reader.read(folder / "file", config, limit)
    service.resident.basis_cache.check(adapter.methods, adapter.layers)
    metadata = with_labels(metadata, adapter)
    registry = service.registry
    new = NewVersion(
        name=name,
        description=adapter.description,
        created_at=int(time.time()),
        created_by="upload",
        metadata=metadata,
        alias=alias,
    )
    return publish(registry.adapters, registry.blobs, new, folder / "file", config)
