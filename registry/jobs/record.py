"""What the registry knows of one training job, and which states may follow each other.

    validating_files ──> queued ──> validating_files ──> running ──> succeeded
       (new)              │ ▲  a claim     (held)           │
                          │ └───────────────┴───────────────┘
                          │   given back, taken back, tried again
                          └──> paused <── held; paused ──> queued (resumed)

Every state but the final ones may become failed or cancelled; a paused job cannot fail. Succeeded,
failed and cancelled are final.

A new job is in `validating_files` until its spec and files are checked; so is a claimed one while
its process reads every example as its base will. Faults of a job are found in this state.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from registry.errors import CorruptRecord, JobNotFound
from registry.jobs.spec import JobSpec
from registry.redis import keys

State = Literal[
    "validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"
]
STATES: tuple[State, ...] = get_args(State)
FINAL: tuple[State, ...] = ("succeeded", "failed", "cancelled")
#: A claimed job is in one of these.
HELD: tuple[State, ...] = ("validating_files", "running")

#: State -> those it may be reached from. `validating_files` is reached by a claim alone.
FROM: dict[State, tuple[State, ...]] = {
    "validating_files": ("queued",),
    "queued": ("validating_files", "running", "paused"),
    "running": ("validating_files",),
    "paused": ("validating_files", "queued", "running"),
    "succeeded": ("running",),
    "failed": ("validating_files", "queued", "running"),
    "cancelled": ("validating_files", "queued", "running", "paused"),
}

JOB_ID = re.compile(r"ftjob-[0-9a-f]{24}")


@dataclass(frozen=True)
class Progress:
    """How far a job is; `seconds_left` is None while there is no estimate."""

    step: int = 0
    num_steps: int = 0
    seconds_left: float | None = None


@dataclass(frozen=True)
class JobError:
    """Why a job failed, as callers of the REST API read it."""

    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True)
class JobResult:
    """What a job made.

    Args:
        reference: `NAME@VERSION`.
        digest: that version's.
        metrics: what evaluation measured; empty until the job has succeeded.
    """

    reference: str
    digest: str
    metrics: dict[str, Any]


@dataclass(frozen=True)
class JobRecord:
    """One job as it stands.

    Args:
        id: `ftjob-` and 24 hex digits.
        spec: what it is to do; never changes.
        state: where it is in the graph above.
        created_at, started_at, finished_at: seconds since 1970; the first start counts.
        attempts: claims so far.
        failures: attempts that ended badly since the last checkpoint.
        fence: of the latest claim; 0 before the first.
        beats: heartbeats since that claim.
        worker: the name of the worker that made that claim.
        progress: of the latest attempt.
        error: only of a failed job.
        result: once something is published.
        trained_tokens: so far.
    """

    id: str
    spec: JobSpec
    state: State
    created_at: float
    started_at: float | None
    finished_at: float | None
    attempts: int
    failures: int
    fence: int
    beats: int
    worker: str | None
    progress: Progress
    error: JobError | None
    result: JobResult | None
    trained_tokens: int

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in FINAL

    @property
    def is_held(self) -> bool:
        """Whether a claim holds it."""
        return self.state in HELD and self.fence > 0

    @classmethod
    def read(cls, id_: str, stored: Mapping[bytes, bytes]) -> Self:
        """Read a job's hash.

        Raises:
            CorruptRecord: a field is missing or not what this program writes.
        """
        try:
            return cls._read(id_, {name.decode(): value.decode() for name, value in stored.items()})
        except (KeyError, ValueError, TypeError) as error:
            raise CorruptRecord(f"{keys.job(id_)} is not a job's record") from error

    @classmethod
    def _read(cls, id_: str, text: Mapping[str, str]) -> Self:
        spec = JobSpec.from_json(text["spec"])
        state = text["state"]
        if state not in STATES:
            raise ValueError(state)
        seconds_left = _number(text.get("seconds_left"))
        progress = Progress(int(text.get("step", 0)), int(text.get("num_steps", 0)), seconds_left)
        error = JobError(**json.loads(text["error"])) if text.get("error") else None
        return cls(
            id=id_,
            spec=spec,
            state=state,
            created_at=float(text["created_at"]),
            started_at=_number(text.get("started_at")),
            finished_at=_number(text.get("finished_at")),
            attempts=int(text.get("attempts", 0)),
            failures=int(text.get("failures", 0)),
            fence=int(text.get("fence", 0)),
            beats=int(text.get("beats", 0)),
            worker=text.get("worker") or None,
            progress=progress,
            error=error,
            result=_result(spec.name, text),
            trained_tokens=int(text.get("trained_tokens", 0)),
        )


def check_job_id(id_: str) -> str:
    """Return `id_` unchanged; it may be part of a key or a path afterwards.

    Raises:
        JobNotFound: no job can have it.
    """
    if not JOB_ID.fullmatch(id_):
        shown = ascii(id_[:60])
        raise JobNotFound(f"no fine-tuning job {shown}: an id is 'ftjob-' and 24 hex digits")
    return id_


def _number(text: str | None) -> float | None:
    return float(text) if text else None


def _result(name: str, text: Mapping[str, str]) -> JobResult | None:
    if not text.get("version"):
        return None
    metrics = json.loads(text.get("metrics") or "{}")
    return JobResult(f"{name}@{int(text['version'])}", text["digest"], metrics)
