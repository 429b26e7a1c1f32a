"""Health, metrics and version."""

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from server.api.bodies.ops import Live, Ready, Version
from server.api.describe import OPEN, READS, SERVES, answer, describe, raw
from server.api.load_page import load_page
from server.api.request import service_of
from server.errors import NotReady, body_of, headers_of, status_of
from server.service import Service

router = APIRouter(tags=["operations"])


@router.get("/health/live", **describe("getLiveness", answer(Live), scopes=OPEN))
async def live() -> Live:
    """Say that the process runs."""
    return {"status": "live"}


@router.get(
    "/health",
    **describe("getHealth", answer(Ready), errors=SERVES, scopes=OPEN),
)
async def health(request: Request) -> Response:
    """Say the same as /health/ready, under the path that other servers have."""
    return await ready(request)


@router.get(
    "/health/ready",
    **describe("getReadiness", answer(Ready), errors=SERVES, scopes=OPEN),
)
async def ready(request: Request) -> Response:
    """Say whether requests are taken now, or why not."""
    try:
        service = service_of(request)
    except Exception as error:
        return _answered(error)
    fault = _fault_of(service)
    if fault is not None:
        return _answered(fault)
    return JSONResponse({"status": "ready", "base": service.base.spec.name})


def _answered(error: Exception) -> JSONResponse:
    return JSONResponse(body_of(error), status_of(error), headers=headers_of(error))


def _fault_of(service: Service) -> NotReady | None:
    """Return why a service that has started is no longer ready."""
    if not service.is_alive:
        return NotReady("the engine's loop has ended; restart the server")
    away = service.registry.directory.away
    if away is not None and away.seconds > service.settings.registry_grace_s:
        return NotReady(
            f"the registry has been away for {away.seconds:.0f} s: {away.reason}. Adapters that "
            "this server knows are still answered"
        )
    return None


@router.get(
    "/metrics",
    **describe("getMetrics", raw("text/plain", "Prometheus' text format."), scopes=("metrics",)),
)
async def metrics(request: Request) -> Response:
    """Return the metrics in Prometheus' text format."""
    state = request.app.state
    if state.service is not None:
        await asyncio.to_thread(_refresh, state.service)
        state.metrics.load.take(state.service.serving.worker.load())
    body, content_type = state.metrics.render()
    return Response(body, media_type=content_type)


def _refresh(service: Service) -> None:
    """Read what is read at a scrape: the registry's jobs, and the disk's room."""
    metrics, registry = service.metrics, service.registry
    metrics.training.refresh(registry.jobs, registry.workers, registry.batches, registry.api_keys)
    try:
        free: int | None = registry.free_bytes()
    except OSError:
        free = None
    metrics.on_disk(free, service.settings.reserve_bytes)


@router.get(
    "/metrics/load",
    **describe("getLoad", raw("text/plain", "Prometheus' text format."), scopes=("metrics",)),
)
async def load(request: Request) -> Response:
    """Return queue, cache use and adapters in use: what schedulers ask for many times a second."""
    return load_page(request.app.state)


@router.get("/version", **describe("getVersion", answer(Version), errors=SERVES, scopes=READS))
async def version(request: Request) -> dict[str, Any]:
    """Return version, base and checks of this server."""
    service = service_of(request)
    return {
        "version": request.app.version,
        "base": {"name": service.base.spec.name, "fingerprint": service.base.spec.fingerprint},
        "max_length": service.max_length,
        "canary": {
            "checked": service.canary.checked,
            "rerouted": [[name, list(shape)] for name, shape in service.canary.rerouted],
        },
        "calibration": service.calibration and service.calibration.shown(),
        "memory": asdict(service.room),
    }
