"""A job's events and numbers as they come, to the job's end."""

import asyncio
import heapq
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, TypeVar

from fastapi import Request

from registry import Event, JobRecord, MetricPoint, RegistryUnavailable
from registry.common.pages import MAX_PAGE
from registry.jobs.jobs import Jobs
from server.api.bodies.jobs import Event as EventBody
from server.api.job_responses import event_object, metrics_event
from server.errors import Draining, Overloaded

#: Between two reads; it grows while nothing is new.
_FIRST_WAIT_S, _LAST_WAIT_S = 0.2, 1.0
#: Every stream polls the registry.
MAX_STREAMS = 64
_PATIENCE_S = 60.0
_Entry = TypeVar("_Entry", Event, MetricPoint)


@dataclass
class _Reader:
    """Reads new events and numbers, and keeps the place of the last ones."""

    jobs: Jobs
    job: JobRecord
    event: str | None
    point: str | None
    is_over: bool = False

    def news(self) -> list[EventBody]:
        """Return what is new, in the order of time; each kind in the order of its own places."""
        # Read first: where it is final, all its events are written.
        self.job = self.jobs.get(self.job.id)
        events = self.jobs.events(self.job.id, MAX_PAGE, self.event)
        points = self.jobs.metrics(self.job.id, MAX_PAGE, self.point)
        is_all = len(events) < MAX_PAGE and len(points) < MAX_PAGE
        events, points = _until_more(events, points), _until_more(points, events)
        self.event = events[-1].id if events else self.event
        self.point = points[-1].id if points else self.point
        self.is_over = self.job.is_final and is_all
        both: tuple[Sequence[Event | MetricPoint], ...] = points, events
        merged = heapq.merge(*both, key=lambda one: one.created_at)
        return [self._shaped(one) for one in merged]

    def _shaped(self, one: Event | MetricPoint) -> EventBody:
        return metrics_event(one, self.job) if isinstance(one, MetricPoint) else event_object(one)


def _until_more(own: Sequence[_Entry], others: Sequence[Any]) -> list[_Entry]:
    """Return the first entries, up to one that is later than all others where these have more."""
    if len(others) < MAX_PAGE:
        return list(own)
    latest = max(one.created_at for one in others)
    return list(takewhile(lambda one: one.created_at <= latest, own))


def check_streams(request: Request) -> None:
    """Refuse a stream above the limit.

    Raises:
        Overloaded: `MAX_STREAMS` are open.
    """
    if request.app.state.num_job_streams >= MAX_STREAMS:
        message = f"{MAX_STREAMS} jobs are followed here already; ask for the list of events"
        raise Overloaded(message, "stream", retry_after_s=5)


async def job_events(
    request: Request, jobs: Jobs, job: JobRecord, after: str | None, after_step: int
) -> AsyncGenerator[EventBody]:
    """Yield a job's events and numbers.

    Args:
        request: the HTTP request.
        jobs: the registry's.
        job: to report on.
        after: id of an event; only later ones are sent.
        after_step: only numbers of later steps are sent.

    Raises:
        Draining: the server is going down.
        RegistryUnavailable: it has been away for a minute.
    """
    # The greatest place of a step: the registry counts what came later at the same step.
    point = f"{after_step}-{2**63}" if after_step >= 0 else None
    reader = _Reader(jobs, job, after, point)
    state = request.app.state
    state.num_job_streams += 1
    try:
        async for event in _all(reader, _stopping(request)):
            yield event
    finally:
        state.num_job_streams -= 1


async def _all(reader: _Reader, is_stopping: Callable[[], bool]) -> AsyncIterator[EventBody]:
    heard = time.monotonic()
    wait_s = _FIRST_WAIT_S
    while not reader.is_over:
        if is_stopping():
            raise Draining("the server is going down; ask another one for the rest")
        try:
            news = await asyncio.to_thread(reader.news)
            heard = time.monotonic()
        except RegistryUnavailable:
            if time.monotonic() > heard + _PATIENCE_S:
                raise
            news = []
        for event in news:
            yield event
        wait_s = _FIRST_WAIT_S if news else min(1.5 * wait_s, _LAST_WAIT_S)
        if not reader.is_over:
            await asyncio.sleep(wait_s)


def _stopping(request: Request) -> Callable[[], bool]:
    state = request.app.state
    return lambda: bool(state.draining or state.is_stopping())
