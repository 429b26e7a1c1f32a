"""What a version of an adapter does to each layer: for its owner, as its files are."""

import asyncio
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi import Path as Path_

from adapters_core.errors import BaseMismatch, BasisPending
from adapters_core.format.read import Adapter
from registry import AdapterNotFound, NotOwner, Record, Reference
from server.api.bodies.layers import AdapterLayers, LayerPicture
from server.api.describe import ASKS_REGISTRY, READS, READS_ADAPTER, answer, describe
from server.api.layer_pictures import layers_of
from server.api.parameters import AdapterName, AdapterVersion
from server.api.request import service_of
from server.errors import NotFound, OutOfMemory, Overloaded
from server.service import Service

router = APIRouter(tags=["adapters"])

_VERSION = "/v1/adapters/{name:adapter}/versions/{version}"
_READS = (*ASKS_REGISTRY, *READS_ADAPTER, AdapterNotFound, NotOwner, BaseMismatch)
_DRAWS = (*_READS, NotFound, BasisPending, Overloaded, OutOfMemory)


@router.get(
    f"{_VERSION}/layers",
    **describe("listAdapterLayers", answer(AdapterLayers), errors=_READS, scopes=READS),
)
async def layers(request: Request, name: AdapterName, version: AdapterVersion) -> dict[str, Any]:
    """List the layers that a version changes, to its owner."""
    service, record = service_of(request), await _own(request, name, version)
    listed = await asyncio.to_thread(lambda: layers_of(_read(service, record), service.resident))
    return {"object": "list", "data": listed}


@router.get(
    f"{_VERSION}/layers/{{layer}}/picture",
    **describe("getLayerPicture", answer(LayerPicture), errors=_DRAWS, scopes=READS),
)
async def picture(
    request: Request,
    name: AdapterName,
    version: AdapterVersion,
    layer: Annotated[str, Path_(description="The layer's path, as `/layers` lists it.")],
) -> LayerPicture:
    """Return the update of one layer and its spectrum as small matrices, to the owner."""
    service, record = service_of(request), await _own(request, name, version)
    draw = request.app.state.pictures.picture
    read = partial(_read, service, record)
    found: LayerPicture = await asyncio.to_thread(
        draw, service.resident, record.digest, layer, read
    )
    return found


async def _own(request: Request, name: str, version: int) -> Record:
    """Return a version of the caller's own."""
    service = service_of(request)
    view = service.registry.adapters_of(request.state.caller.space)

    def read(stored: str) -> Record:
        return service.registry.adapters.resolve(Reference(stored, "version", str(version)))

    return await asyncio.to_thread(view.change, name, read)


def _read(service: Service, record: Record) -> Adapter:
    """Read a version's file, checked again."""
    blob = service.registry.blobs.open_whole(record.digest)
    return service.resident.reader.read(blob.file, blob.config.read_bytes(), digest=record.digest)
