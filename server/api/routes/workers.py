"""The trainer workers that are alive: without one of a job's base the job waits."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from registry.jobs.workers import WorkerRecord
from server.api.bodies.ops import Worker, WorkerList
from server.api.describe import ASKS_REGISTRY, TRAIN, answer, describe
from server.api.request import service_of

router = APIRouter(tags=["operations"])


@router.get(
    "/v1/workers", **describe("listWorkers", answer(WorkerList), errors=ASKS_REGISTRY, scopes=TRAIN)
)
async def workers(request: Request) -> dict[str, Any]:
    """List the workers of this server's registry with a heartbeat within half a minute."""
    found = await asyncio.to_thread(service_of(request).registry.workers.alive)
    return {"object": "list", "data": [_shown(worker) for worker in found]}


def _shown(worker: WorkerRecord) -> Worker:
    """Return a worker without its job, which may be of another tenant."""
    return {
        "object": "worker",
        "id": worker.name,
        "model": worker.base_name,
        "device": worker.device,
        "is_busy": worker.job is not None,
        "started_at": int(worker.started_at),
    }
