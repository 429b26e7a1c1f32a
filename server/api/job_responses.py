"""Files, jobs, events, checkpoints and curves in OpenAI's shapes, with the product's own beside."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, TypeVar

from registry import Checkpoint, Event, FileRecord, JobRecord, MetricPoint
from registry.jobs.comparison import is_better_than_base
from registry.jobs.samples import Samples
from server.api.bodies.files import File
from server.api.bodies.jobs import Checkpoint as CheckpointBody
from server.api.bodies.jobs import CheckpointFacts, Job, JobAdapter, JobFacts
from server.api.bodies.jobs import Event as EventBody
from server.errors import InvalidRequest

Json = dict[str, Any]
T = TypeVar("T")

_EVENT = "ftevent-"
_CHECKPOINT = re.compile(r"ftckpt-[0-9a-f]{24}-([0-9]{1,15})")
#: OpenAI's clients know no other levels.
_LEVELS: dict[str, Literal["warn", "error"]] = {"warn": "warn", "error": "error"}


def page_object(items: Sequence[T], shape: Callable[[T], Any], limit: int) -> Json:
    """Return one page of a list, as OpenAI's clients walk it.

    Args:
        items: of the page, and one that comes after it if there is any.
        shape: of one.
        limit: of the page.
    """
    data = [shape(item) for item in items[:limit]]
    return {
        "object": "list",
        "data": data,
        "has_more": len(items) > limit,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }


def file_object(record: FileRecord) -> File:
    """Return an uploaded file; one that cannot be trained on has status `error` and says why."""
    faults = str(record.facts.get("shown") or "")
    facts: Any = {"digest": record.digest, **record.facts}
    return {
        "id": record.id,
        "object": "file",
        "bytes": record.size_bytes,
        "created_at": int(record.created_at),
        "expires_at": None,
        "filename": record.filename,
        "purpose": record.purpose,
        "status": "error" if faults else "processed",
        "status_details": faults or None,
        "overtone": facts,
    }


def job_object(job: JobRecord) -> Job:
    """Return a job."""
    spec, hyper = job.spec, _fields(job.spec.hyperparameters)
    done = job.state == "succeeded" and job.result is not None
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": int(job.created_at),
        "finished_at": _whole(job.finished_at),
        "estimated_finish": _estimated(job),
        "status": job.state,
        "error": _fields(job.error),
        "model": spec.base_name,
        "fine_tuned_model": job.result.reference if done and job.result else None,
        "training_file": spec.training_file,
        "validation_file": spec.validation_file,
        "result_files": [],
        "trained_tokens": job.trained_tokens if job.is_final else None,
        "seed": spec.seed,
        "metadata": spec.metadata,
        "organization_id": "overtone",
        "integrations": [],
        "hyperparameters": {
            "n_epochs": hyper["n_epochs"],
            "batch_size": hyper["batch_size"],
            "learning_rate_multiplier": hyper["learning_rate_multiplier"],
        },
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyper}},
        "adapter": _adapter(job),
        "overtone": _own(job),
    }


def event_object(event: Event) -> EventBody:
    """Return one line of a job's history."""
    return {
        "id": _EVENT + event.id,
        "object": "fine_tuning.job.event",
        "created_at": int(event.created_at),
        "level": _LEVELS.get(event.level, "info"),
        "message": event.message,
        "type": event.type,
        "data": event.data,
    }


def metrics_event(point: MetricPoint, job: JobRecord) -> EventBody:
    """Return a step's numbers as an event of a stream."""
    progress = job.progress
    left = {"num_steps": progress.num_steps, "seconds_left": progress.seconds_left}
    words = ", ".join(f"{name}={value:.4g}" for name, value in point.values.items())
    return {
        "id": f"ftmetrics-{point.id}",
        "object": "fine_tuning.job.event",
        "created_at": int(point.created_at or time.time()),
        "level": "info",
        "message": f"Step {point.step}/{progress.num_steps}: {words}",
        "type": "metrics",
        "data": {"step": point.step, **left, **point.values},
    }


def checkpoint_object(
    checkpoint: Checkpoint, job: JobRecord, samples: Mapping[int, Samples]
) -> CheckpointBody:
    """Return a checkpoint: a state that the job goes on from, no version that answers.

    Args:
        checkpoint: of the job.
        job: its record.
        samples: of the job's checkpoints, by their steps.
    """
    return {
        "id": f"ftckpt-{job.id.removeprefix('ftjob-')}-{checkpoint.step}",
        "object": "fine_tuning.job.checkpoint",
        "created_at": int(checkpoint.created_at),
        "fine_tuning_job_id": job.id,
        "fine_tuned_model_checkpoint": f"{job.spec.name}:step-{checkpoint.step}",
        "step_number": checkpoint.step,
        "metrics": {"step": checkpoint.step},
        "overtone": _sampled(samples.get(checkpoint.step), job),
    }


def _sampled(samples: Samples | None, job: JobRecord) -> CheckpointFacts:
    if samples is None:
        is_off = not job.spec.hyperparameters.checkpoint_samples
        why: Literal["off", "not_made"] = "off" if is_off else "not_made"
        return {"samples": [], "samples_source": None, "samples_left_out": why}
    return {
        "samples": [_fields(one) for one in samples.samples],
        "samples_source": samples.source,
        "samples_left_out": samples.left_out,
    }


def point_object(point: MetricPoint) -> Json:
    """Return one step of a curve."""
    return {"id": point.id, "step": point.step, **point.values}


def event_place(after: str | None) -> str | None:
    """Return the registry's place of an event that a caller names, None for none."""
    return None if after is None else after.removeprefix(_EVENT)


def checkpoint_step(after: str | None) -> int | None:
    """Return the step of a checkpoint that a caller names, None for none.

    Raises:
        InvalidRequest: it is no checkpoint's id.
    """
    if after is None:
        return None
    found = _CHECKPOINT.fullmatch(after)
    if found is None:
        raise InvalidRequest(f"after = {after[:80]!r} is no checkpoint's id", "after")
    return int(found[1])


def _adapter(job: JobRecord) -> JobAdapter:
    spec = job.spec
    return {
        "name": spec.name,
        "method": spec.method,
        "config": spec.method_config,
        "task": spec.task,
        "alias": spec.alias,
        "publish_if": _fields(spec.publish_if),
        "move_latest": spec.move_latest,
    }


def _own(job: JobRecord) -> JobFacts:
    return {
        "progress": _fields(job.progress) | {"trained_tokens": job.trained_tokens},
        "started_at": _whole(job.started_at),
        "attempts": job.attempts,
        "worker": job.worker,
        "result": _fields(job.result),
        "is_better_than_base": is_better_than_base(job.result.metrics if job.result else {}),
    }


def _fields(value: Any) -> Any:
    """Return a dataclass's fields as a JSON object; null for none."""
    return None if value is None else asdict(value)


def _estimated(job: JobRecord) -> int | None:
    left = job.progress.seconds_left
    return int(time.time() + left) if job.state == "running" and left is not None else None


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)
