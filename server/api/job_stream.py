"""A job's events and numbers as they come, to the job's end."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass

from fastapi import Request

from registry import JobRecord, RegistryUnavailable
from registry.common.pages import MAX_PAGE
from registry.jobs.jobs import Jobs
from server.api.bodies.jobs import Event
from server.api.job_responses import event_object, metrics_event
from server.errors import Draining, Overloaded

#: Between two reads; it grows while nothing is new.
_FIRST_WAIT_S, _LAST_WAIT_S = 0.2, 1.0
#: Every stream polls the registry.
MAX_STREAMS = 64
_PATIENCE_S = 60.0


@dataclass
class _Reader:
    """Reads new events and numbers, and keeps the place of the last ones."""

    jobs: Jobs
    job: JobRecord
    event: str | None
    point: str | None
    is_over: bool = False

    def news(self) -> list[Event]:
        """Return what is new; the latest event, perhaps the job's last, comes after all numbers."""
        # Read first: where it is final, all its events are written.
        self.job = self.jobs.get(self.job.id)
        events = self.jobs.events(self.job.id, MAX_PAGE, self.event)
        points = self.jobs.metrics(self.job.id, MAX_PAGE, self.point)
        is_all = len(events) < MAX_PAGE and len(points) < MAX_PAGE
        if len(points) == MAX_PAGE:  # more numbers come first
            events = events[:-1]
        self.event = events[-1].id if events else self.event
        self.point = points[-1].id if points else self.point
        self.is_over = self.job.is_final and is_all
        numbers = [metrics_event(point, self.job) for point in points]
        shaped = [event_object(event) for event in events]
        return [*shaped[:-1], *numbers, *shaped[-1:]]


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
) -> AsyncGenerator[Event]:
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


async def _all(reader: _Reader, is_stopping: Callable[[], bool]) -> AsyncIterator[Event]:
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
