"""OpenAI's fine-tuning API: jobs, their events, checkpoints and curves.

A tenant sees its own jobs only. Workers read from the registry what these routes write.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request, Response

from adapters_core.errors import InvalidAdapter, UnknownMethod
from registry import (
    AdapterNotFound,
    Checkpoint,
    FileNotFound,
    JobConflict,
    JobNotFound,
    JobRecord,
    QuotaExceeded,
    Registry,
)
from server.api.bodies.jobs import CheckpointPage, CurvePage, Event, EventPage, Job, JobPage
from server.api.describe import ASKS_REGISTRY, INVALID, TRAIN, WRITES, answer, describe, raw
from server.api.event_stream import EventStream, event_lines
from server.api.job_creation import file_job
from server.api.job_responses import (
    checkpoint_object,
    checkpoint_step,
    event_object,
    event_place,
    job_object,
    page_object,
    point_object,
)
from server.api.job_schemas import JobRequest
from server.api.job_stream import check_streams, job_events
from server.api.parameters import MAX_PAGE, After, JobId, Limit
from server.api.request import check_room, json_body, service_of
from server.errors import Overloaded, StorageFull, UnsupportedParameter

router = APIRouter(tags=["fine-tuning"])
T = TypeVar("T")

_JOBS = "/v1/fine_tuning/jobs"
_UNKNOWN = (*ASKS_REGISTRY, JobNotFound)
_PAGES = (*_UNKNOWN, *INVALID)
_MOVES = (*_UNKNOWN, JobConflict)


async def _call(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run a blocking call beside the event loop."""
    return await asyncio.to_thread(partial(function, *args, **kwargs))


@router.post(
    _JOBS,
    **describe(
        "createFineTuningJob",
        answer(Job),
        body=JobRequest,
        errors=(
            *WRITES,
            UnsupportedParameter,
            AdapterNotFound,
            FileNotFound,
            InvalidAdapter,
            UnknownMethod,
            QuotaExceeded,
        ),
        scopes=TRAIN,
    ),
)
async def create(request: Request) -> Job:
    """File a job; a worker of this base takes it."""
    body = await json_body(request, JobRequest)
    await check_room(service_of(request))
    job = await _call(file_job, service_of(request), body, request.state.caller)
    request.state.made = {"job_id": job.id}
    return job_object(job)


@router.get(
    _JOBS,
    **describe(
        "listFineTuningJobs", answer(JobPage), errors=(*_PAGES, UnsupportedParameter), scopes=TRAIN
    ),
)
async def list_jobs(
    request: Request,
    limit: Limit = 20,
    after: After = None,
) -> dict[str, Any]:
    """List the caller's jobs, the newest first."""
    for name in request.query_params:
        if name.partition("[")[0] == "metadata":
            raise UnsupportedParameter("jobs cannot be filtered by metadata here", "metadata")
    registry = service_of(request).registry
    found = await _call(registry.jobs.list, limit + 1, after, request.state.tenant)
    return page_object(found, job_object, limit)


@router.get(
    _JOBS + "/{job_id}", **describe("getFineTuningJob", answer(Job), errors=_UNKNOWN, scopes=TRAIN)
)
async def show(request: Request, job_id: JobId) -> Job:
    """Show a job as it stands."""
    return job_object(await _own_job(request, job_id))


@router.post(
    _JOBS + "/{job_id}/cancel",
    **describe("cancelFineTuningJob", answer(Job), errors=_MOVES, scopes=TRAIN),
)
async def cancel(request: Request, job_id: JobId) -> Job:
    """End a job for good; a running one stops within a step."""
    return await _moved(request, job_id, lambda jobs: jobs.cancel)


@router.post(
    _JOBS + "/{job_id}/pause",
    **describe("pauseFineTuningJob", answer(Job), errors=_MOVES, scopes=TRAIN),
)
async def pause(request: Request, job_id: JobId) -> Job:
    """Hold a job until it is resumed; a running one writes a checkpoint first."""
    return await _moved(request, job_id, lambda jobs: jobs.pause)


@router.post(
    _JOBS + "/{job_id}/resume",
    **describe("resumeFineTuningJob", answer(Job), errors=(*_MOVES, StorageFull), scopes=TRAIN),
)
async def resume(request: Request, job_id: JobId) -> Job:
    """Queue a paused job again."""
    await check_room(service_of(request))
    return await _moved(request, job_id, lambda jobs: jobs.resume)


@router.get(
    _JOBS + "/{job_id}/events",
    **describe(
        "listFineTuningEvents",
        answer(EventPage, events=Event),
        errors=(*_PAGES, Overloaded),
        scopes=TRAIN,
    ),
)
async def events(
    request: Request,
    job_id: JobId,
    limit: Limit = 20,
    after: After = None,
    stream: Annotated[bool, Query(description="Answer in server-sent events.")] = False,
    after_step: Annotated[
        int, Query(ge=-1, le=1 << 31, description="Of a stream: only numbers of later steps.")
    ] = -1,
) -> Any:
    """List the events, the newest first; as a stream, from the oldest on, to the job's end.

    A stream also has each step's numbers, from the one after `after_step` on.
    """
    job = await _own_job(request, job_id)
    jobs = service_of(request).registry.jobs
    if stream:
        check_streams(request)
        await _call(jobs.events, job.id, 1, event_place(after))  # a bad `after` is a 400, no event
        events = job_events(request, jobs, job, event_place(after), after_step)
        return EventStream(event_lines(request, events))
    found = await _call(jobs.last_events, job.id, limit + 1, event_place(after))
    return page_object(found, event_object, limit)


@router.get(
    _JOBS + "/{job_id}/checkpoints",
    **describe("listFineTuningCheckpoints", answer(CheckpointPage), errors=_PAGES, scopes=TRAIN),
)
async def checkpoints(
    request: Request,
    job_id: JobId,
    limit: Limit = 10,
    after: After = None,
) -> dict[str, Any]:
    """List the checkpoints that the job can resume from, the newest first.

    `overtone.samples` has what the adapter answered to held-out prompts as it was at each.
    """
    step = checkpoint_step(after)
    job = await _own_job(request, job_id)
    registry = service_of(request).registry
    known = await _call(_all_checkpoints, registry, job)
    samples = await _call(registry.jobs.samples, job.id)
    newest = [one for one in reversed(known) if step is None or one.step < step]
    shape = partial(checkpoint_object, job=job, samples=samples)
    return page_object(newest, shape, limit)


@router.get(
    _JOBS + "/{job_id}/metrics",
    **describe("listFineTuningMetrics", answer(CurvePage), errors=_PAGES, scopes=TRAIN),
)
async def curve(
    request: Request,
    job_id: JobId,
    limit: Limit = MAX_PAGE,
    after: After = None,
) -> dict[str, Any]:
    """Return each step's numbers, from the first on."""
    job = await _own_job(request, job_id)
    found = await _call(service_of(request).registry.jobs.metrics, job.id, limit + 1, after)
    return page_object(found, point_object, limit)


@router.get(
    _JOBS + "/{job_id}/plot.png",
    **describe("getFineTuningPlot", raw("image/png", "The curve."), errors=_UNKNOWN, scopes=TRAIN),
)
async def plot(request: Request, job_id: JobId) -> Response:
    """Return the training curve so far as a picture."""
    job = await _own_job(request, job_id)
    curves = request.app.state.curves
    picture = await _call(curves.plot, service_of(request).registry.jobs, job)
    return Response(picture, media_type="image/png", headers={"Cache-Control": "no-cache"})


async def _own_job(request: Request, job_id: str) -> JobRecord:
    """Return a job of the caller's tenant; jobs of other tenants are not found."""
    job = await _call(service_of(request).registry.jobs.get, job_id)
    if job.spec.created_by != request.state.tenant:
        raise JobNotFound(f"no fine-tuning job {job_id!r}")
    return job


async def _moved(request: Request, job_id: str, move: Callable[[Any], Any]) -> Job:
    job = await _own_job(request, job_id)
    jobs = service_of(request).registry.jobs
    return job_object(await _call(partial(move(jobs), job.id, now=time.time())))


def _all_checkpoints(registry: Registry, job: JobRecord) -> list[Checkpoint]:
    found: list[Checkpoint] = []
    while True:
        after = f"{found[-1].step}-1" if found else None
        page = registry.jobs.checkpoints(job.id, MAX_PAGE, after)
        found += page
        if len(page) < MAX_PAGE:
            return found
