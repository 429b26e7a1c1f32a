"""What the server's answers about training become; as types.py, with the JSON under `raw`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

#: States after which nothing happens any more.
FINAL = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True)
class TrainingFile:
    """An uploaded file.

    Args:
        id: names it in a job.
        filename: as it was uploaded.
        size_bytes: of its content.
        created_at: in UTC.
        faults: what is wrong with it, with the lines; None if it can be trained on.
        digest: `sha256:` and 64 hex digits.
        num_examples: those without a fault.
    """

    id: str
    filename: str
    size_bytes: int
    created_at: datetime | None
    faults: str | None
    digest: str | None
    num_examples: int | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Worker:
    """A trainer worker that is alive.

    Args:
        id: its host and process id, or the name that it was given.
        model: the base of the jobs that it takes.
        device: on which it trains.
        is_busy: it has a job.
        started_at: in UTC.
    """

    id: str
    model: str
    device: str
    is_busy: bool
    started_at: datetime | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class JobFault:
    """Why a job failed."""

    code: str
    message: str
    param: str | None


@dataclass(frozen=True)
class JobFacts:
    """What is known of a training job; `Job` has it and what can be done.

    Args:
        id: `ftjob-…`.
        status: `validating_files`, `queued`, `running`, `paused`, `succeeded`, `failed` or
            `cancelled`.
        model: the base.
        name: of the adapter that it makes.
        method: of the adapter, or `auto`.
        fine_tuned_model: `NAME@VERSION`, once it has succeeded.
        error: only of a failed job.
        step, num_steps: how far it is.
        seconds_left: while it runs, once anything can be said.
        metrics: on held-out examples, when it has succeeded; `base` among them has the base's.
        digest: of the version that it made.
        created_at: in UTC.
    """

    id: str
    status: str
    model: str
    name: str | None
    method: str | None
    fine_tuned_model: str | None
    error: JobFault | None
    step: int
    num_steps: int
    seconds_left: float | None
    metrics: Mapping[str, Any]
    digest: str | None
    created_at: datetime | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def is_final(self) -> bool:
        """Whether nothing will happen any more."""
        return self.status in FINAL


@dataclass(frozen=True)
class JobEvent:
    """One line of a job's history; of type `metrics` in a stream: one step's numbers, in `data`."""

    id: str
    created_at: datetime | None
    level: str
    message: str
    type: str
    data: Mapping[str, Any]
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class CheckpointSample:
    """A held-out prompt, and what the adapter answered as it was at a checkpoint.

    Args:
        prompt: its end, as the base reads it.
        expected: the answer, or the label, that the file has.
        answer: the adapter's, of at most 48 tokens.
        finish_reason: `stop`, `length`, or `time` where it was cut.
    """

    prompt: str
    expected: str
    answer: str
    finish_reason: str


@dataclass(frozen=True)
class JobCheckpoint:
    """A state of a job from which it can resume.

    Args:
        id: `ftckpt-…`.
        step: after which it was written.
        created_at: in UTC.
        samples: what the adapter answered then to a few held-out prompts.
        samples_source: the prompts' file, `validation_file` or `training_file`.
        samples_left_out: why there are no samples: `off`, `time`, `failed`, `no_prompts` or
            `not_made`.
    """

    id: str
    step: int
    created_at: datetime | None
    samples: Sequence[CheckpointSample]
    samples_source: str | None
    samples_left_out: str | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class CurvePoint:
    """The numbers of one step."""

    step: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Evaluation:
    """A model's figures on a file of examples; until `is_over`, how many of them are done."""

    model: str
    done: int
    num_examples: int
    metrics: Mapping[str, float]
    is_over: bool
    raw: Mapping[str, Any] = field(repr=False, compare=False)
