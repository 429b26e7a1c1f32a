"""Parsers of the answers about training."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx2

from ._responses import _time as moment
from ._responses import understood
from .training_types import (
    CheckpointSample,
    CurvePoint,
    Evaluation,
    JobCheckpoint,
    JobEvent,
    JobFault,
    TrainingFile,
    Worker,
)

T = TypeVar("T")
Json = Mapping[str, Any]


def parse(response: httpx2.Response, build: Callable[[Any], T]) -> T:
    """One value. Raises InvalidResponse where the body is not of the expected shape."""
    return understood(str(response.url), build, response.json)


def to_file(body: Json) -> TrainingFile:
    """An uploaded file from its JSON."""
    own = body.get("overtone") or {}
    return TrainingFile(
        id=str(body["id"]),
        filename=str(body.get("filename", "")),
        size_bytes=int(body["bytes"]),
        created_at=moment(body.get("created_at")),
        faults=body.get("status_details") if body.get("status") == "error" else None,
        digest=own.get("digest"),
        num_examples=own.get("num_examples"),
        raw=body,
    )


def job_facts(body: Json) -> dict[str, Any]:
    """The fields of a `JobFacts` from its JSON."""
    adapter, own = body.get("adapter") or {}, body.get("overtone") or {}
    progress, result = own.get("progress") or {}, own.get("result") or {}
    fault = body.get("error")
    return {
        "id": str(body["id"]),
        "status": str(body["status"]),
        "model": str(body["model"]),
        "name": adapter.get("name"),
        "method": adapter.get("method"),
        "fine_tuned_model": body.get("fine_tuned_model"),
        "error": fault and JobFault(str(fault["code"]), str(fault["message"]), fault.get("param")),
        "step": int(progress.get("step", 0)),
        "num_steps": int(progress.get("num_steps", 0)),
        "seconds_left": progress.get("seconds_left"),
        "metrics": result.get("metrics") or {},
        "digest": result.get("digest"),
        "created_at": moment(body.get("created_at")),
        "raw": body,
    }


def to_workers(body: Json) -> list[Worker]:
    """The workers of a list."""
    return [
        Worker(
            id=str(each["id"]),
            model=str(each["model"]),
            device=str(each.get("device", "")),
            is_busy=bool(each.get("is_busy")),
            started_at=moment(each.get("started_at")),
            raw=each,
        )
        for each in body["data"]
    ]


def to_event(body: Json) -> JobEvent:
    """An event from its JSON."""
    return JobEvent(
        id=str(body["id"]),
        created_at=moment(body.get("created_at")),
        level=str(body.get("level", "info")),
        message=str(body["message"]),
        type=str(body.get("type") or "message"),
        data=body.get("data") or {},
        raw=body,
    )


def to_checkpoint(body: Json) -> JobCheckpoint:
    """A checkpoint from its JSON."""
    own = body.get("overtone") or {}
    return JobCheckpoint(
        id=str(body["id"]),
        step=int(body["step_number"]),
        created_at=moment(body.get("created_at")),
        samples=[_sample(each) for each in own.get("samples") or ()],
        samples_source=own.get("samples_source"),
        samples_left_out=own.get("samples_left_out"),
        raw=body,
    )


def _sample(body: Json) -> CheckpointSample:
    return CheckpointSample(
        prompt=str(body["prompt"]),
        expected=str(body["expected"]),
        answer=str(body["answer"]),
        finish_reason=str(body["finish_reason"]),
    )


def to_point(body: Json) -> CurvePoint:
    """One step's numbers from their JSON."""
    names = body.keys() - {"id", "step"}
    return CurvePoint(int(body["step"]), {name: float(body[name]) for name in sorted(names)})


def to_evaluation(body: Json) -> Evaluation:
    """An evaluation, or how far it is, from its JSON."""
    is_over = body["object"] == "evaluation"
    total = int(body["num_examples"] if is_over else body["total"])
    return Evaluation(
        model=str(body.get("model", "")),
        done=total if is_over else int(body["done"]),
        num_examples=total,
        metrics={name: float(value) for name, value in (body.get("metrics") or {}).items()},
        is_over=is_over,
        raw=body,
    )
