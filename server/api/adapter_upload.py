"""An adapter that is posted as a form: read, checked against the base, published."""

import asyncio
import hashlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from starlette.datastructures import FormData, UploadFile

from adapters_core.contract.peft_config import MAX_CONFIG_BYTES
from adapters_core.contract.safetensors_header import DEFAULT_MAX_FILE_BYTES
from adapters_core.strict_json import UnclearJson, strict_json
from registry import NewVersion, Record, Sharing, publish
from registry.common.limits import UNLIMITED, Limits
from registry.common.spaces import OPERATORS
from server.api.callers import Caller
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
        shared: whether all tenants may use the adapter; missing: as before, at first not.
    """

    name: str
    file: bytes
    config: bytes
    alias: str | None = None
    metadata: str | None = None
    shared: bool | None = None


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


@dataclass(frozen=True)
class Upload:
    """A form that was read; its coefficient file is `file` in a folder.

    Args:
        name: the adapter's, as the caller says it.
        alias: points to this version afterwards, if given.
        config: adapter_config.json.
        metadata: kept with the version.
        shared: whether all tenants may use the adapter; None leaves that as it is.
    """

    name: str
    alias: str | None
    config: bytes
    metadata: dict[str, Any]
    shared: bool | None


async def read_form(form: FormData, folder: Path) -> Upload:
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
    return Upload(
        name=_text(form, "name"),
        alias=_text(form, "alias") if "alias" in form else None,
        config=await _bytes(form["config"]),
        metadata=_metadata(await _bytes(form["metadata"])) if "metadata" in form else {},
        shared=_flag(form, "shared"),
    )


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


def _flag(form: FormData, name: str) -> bool | None:
    """Return a field that is `true` or `false`; None where it is missing."""
    if name not in form:
        return None
    given = _text(form, name)
    if given not in ("true", "false"):
        raise InvalidRequest(f"field {name!r} is {given[:40]!r}; give true or false", name)
    return given == "true"


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
    service: Service, caller: Caller, folder: Path, upload: Upload
) -> tuple[Record, bool]:
    """Check the file against the base and publish it: blob first, record last, shared afterwards.

    Raises:
        NotOwner, AdapterNotFound: the name is another tenant's.
        AdapterError: the file is not what the base takes.
        QuotaExceeded: the tenant would have more than it may.
        InvalidRequest: the name is the base's; or what all tenants use must not be shared.
    """
    if upload.name == service.base.spec.name:
        raise InvalidRequest(f"{upload.name!r} is the base's own name", "name")
    if upload.shared is not None:
        check_sharing(caller, upload.shared)
    name = service.registry.adapters_of(caller.space).own(upload.name)
    limit = min(service.settings.max_upload_bytes, DEFAULT_MAX_FILE_BYTES)
    adapter = service.resident.reader.read(folder / "file", upload.config, limit)
    service.resident.basis_cache.check(adapter.methods, adapter.layers)
    registry = service.registry
    new = NewVersion(
        name=name,
        description=adapter.description,
        created_at=int(time.time()),
        created_by="upload",
        metadata=with_labels(upload.metadata, adapter),
        alias=upload.alias,
        limits=_limits(service, caller),
    )
    made = publish(registry.adapters, registry.blobs, new, folder / "file", upload.config)
    if upload.shared is not None and caller.space != OPERATORS:
        before = registry.adapters.sharing(name)
        registry.adapters.share(name, Sharing(upload.shared, before.tenants))
    return made


def _limits(service: Service, caller: Caller) -> Limits:
    """Return what limits the adapters of a space; the operators' are not limited."""
    is_limited = caller.space != OPERATORS
    return service.tenant_limits.of(caller.tenant) if is_limited else UNLIMITED


def check_sharing(caller: Caller, is_shared: bool) -> None:
    """Refuse to share less of what is the operators'.

    Raises:
        InvalidRequest: all tenants use it.
    """
    if caller.space == OPERATORS and not is_shared:
        raise InvalidRequest(
            "without a key of a tenant, adapters are the operators', which every tenant may use",
            "shared",
        )
