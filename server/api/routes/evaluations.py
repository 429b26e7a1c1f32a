"""POST /v1/evaluations: how good a model's served answers are on an uploaded file."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from registry import FileNotFound
from server.api.answerer import HEADER, Answerer, resolve
from server.api.bodies.answers import Evaluation as Evaluated
from server.api.bodies.answers import EvaluationProgress
from server.api.callers import Caller
from server.api.describe import ANSWERS, INFER, answer, describe
from server.api.event_stream import EventStream, event_lines
from server.api.job_creation import own_file_for
from server.api.request import json_body, service_of, unless_gone
from server.api.request_body import RequestBody
from server.errors import InvalidRequest, Overloaded
from server.evaluation.evaluation import Evaluation, EvaluationSpec
from server.service import Service

router = APIRouter(tags=["inference"])

#: Each has a thread and keeps texts in the engine.
_MAX_AT_ONCE = 4


class EvaluationRequest(RequestBody):
    """What to evaluate.

    Args:
        model: the base's name, or an adapter's: `NAME`, `NAME@3`, `NAME@prod`, `NAME@sha256:…`.
        file: id of a file that was uploaded with `purpose: fine-tune`.
        max_length: tokens to which longer texts are cut; missing: they are refused.
        stream: answer in server-sent events: the progress twice a second, then the evaluation.
    """

    example = {"model": "NAME", "file": "file-…"}

    model: str
    file: str
    max_length: Annotated[int, Field(ge=2, le=1 << 24, strict=True)] | None = None
    stream: Annotated[bool, Field(strict=True)] = False


@router.post(
    "/v1/evaluations",
    **describe(
        "createEvaluation",
        answer(Evaluated, events=Evaluated | EvaluationProgress, headers=(HEADER,)),
        body=EvaluationRequest,
        errors=(*ANSWERS, FileNotFound),
        scopes=INFER,
    ),
)
async def evaluate(request: Request) -> Response:
    """Compute a training job's figures of a served model, at once or with progress as events."""
    body = await json_body(request, EvaluationRequest)
    service = service_of(request)
    answerer, evaluation = await asyncio.to_thread(_opened, service, body, request.state.caller)
    state = request.app.state
    if state.num_evaluations >= _MAX_AT_ONCE:
        message = f"{_MAX_AT_ONCE} evaluations run already; try again when one is over"
        raise Overloaded(message, retry_after_s=10)
    state.num_evaluations += 1
    if answerer.record is not None:
        service.metrics.on_adapter(answerer.record.name)
    run = _Run(evaluation)
    headers = answerer.headers
    if body.stream:
        return EventStream(event_lines(request, _events(request, run)), headers)
    try:
        return JSONResponse(await unless_gone(request, run.result()), headers=headers)
    finally:
        run.stop()
        state.num_evaluations -= 1


def _opened(
    service: Service, body: EvaluationRequest, caller: Caller
) -> tuple[Answerer, Evaluation]:
    answerer, files = resolve(service, body.model, caller.space), service.registry.files
    record = own_file_for(service.registry, body.file, caller.tenant, "fine-tune", "file")
    faults = record.facts.get("faults") or []
    if faults:
        raise InvalidRequest(f"line {faults[0]['line']}: {faults[0]['message']}", "file")
    spec = EvaluationSpec(answerer, files.open(body.file), caller.tenant, body.max_length)
    return answerer, Evaluation(service, spec)


class _Run:
    """An evaluation on a thread of its own, and its progress."""

    def __init__(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation
        self._wanted = threading.Event()
        self._wanted.set()
        self.done, self.total = 0, evaluation.total

    def stop(self) -> None:
        """Stop at the next example; safe to call twice."""
        self._wanted.clear()

    async def result(self) -> dict[str, Any]:
        """Return the evaluation when it is over."""
        return await asyncio.to_thread(self._evaluation.run, self._told, self._wanted.is_set)

    def _told(self, done: int) -> None:
        self.done = done


async def _events(request: Request, run: _Run) -> AsyncGenerator[dict[str, Any]]:
    """Yield the progress twice a second, then the evaluation."""
    task = asyncio.ensure_future(run.result())
    try:
        while not task.done():
            yield _progress(run)
            await asyncio.wait({task}, timeout=0.5)
        yield task.result()
    finally:
        run.stop()
        await asyncio.wait({task})
        request.app.state.num_evaluations -= 1


def _progress(run: _Run) -> dict[str, Any]:
    return {"object": "evaluation.progress", "done": run.done, "total": run.total}
