"""Changes of a job's state: `job_move.lua`, and the queue that is kept in step with it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import redis

from registry.common.fence import Fence
from registry.errors import FenceLost, JobConflict, JobNotFound
from registry.jobs.log import shown
from registry.jobs.queue import JobQueues
from registry.jobs.record import FROM, JobError, JobRecord, State, check_job_id
from registry.redis import keys
from registry.redis.hashes import fields_of
from registry.redis.scripts import Scripts


@dataclass(frozen=True)
class Move:
    """A change of state.

    Args:
        to: the new state.
        message: said in the job's events.
        level: of that event.
        only: the states it may come from, if not all that the graph allows.
        fence: the claim under which it is made; None: whatever claim holds the job.
        beats: the heartbeats that were seen; None for any number.
        fields: what is written beside the state.
    """

    to: State
    message: str
    level: str = "info"
    only: Sequence[State] | None = None
    fence: Fence | None = None
    beats: int | None = None
    fields: dict[str, str] = field(default_factory=dict)


def failed(error: JobError, fence: Fence | None = None, beats: int | None = None) -> Move:
    """Return the move that ends a job as failed."""
    error = JobError(error.code, shown(error.message), error.param)
    fields = {"error": json.dumps(asdict(error))}
    return Move("failed", error.message, "error", None, fence, beats, fields)


class Moves:
    """Makes moves, and keeps the queues of waiting jobs in step.

    Args:
        client: answers bytes and has socket timeouts.
        scripts: on the same client.
    """

    def __init__(self, client: redis.Redis, scripts: Scripts) -> None:
        self._scripts = scripts
        self.queues = JobQueues(client, scripts)

    def make(self, id_: str, move: Move, now: float, first: bool = False) -> JobRecord:
        """Return the job's record after the move; a move that was made before changes nothing.

        Args:
            id_: the job's.
            move: what is to change.
            now: seconds since 1970.
            first: a queued job goes before all others in its queue.

        Raises:
            JobNotFound: there is no such job.
            FenceLost: the fence is an older claim's, or there was a heartbeat.
            JobConflict: the present state does not allow it.
        """
        touched = [keys.job(check_job_id(id_)), *keys.job_logs(id_)]
        state, *rest = self._scripts.run("job_move", touched, _words(id_, move, now))
        if state not in (b"moved", b"already"):
            raise _refusal(id_, move, state, rest)
        record = record_of(id_, rest[0])
        base = record.spec.base_name
        if record.state == "queued":
            self.queues.put(base, id_, first)
        elif record.state in ("paused", "cancelled"):
            self.queues.remove(base, id_)
        return record


def record_of(id_: str, pairs: Sequence[bytes]) -> JobRecord:
    """Return the record that a script gave as field, value, field, value..."""
    return JobRecord.read(id_, fields_of(pairs))


def _words(id_: str, move: Move, now: float) -> list[str | bytes | int]:
    prefixes = [keys.JOBS_IN_STATE, keys.FILE_USERS]
    before = ",".join(move.only or FROM[move.to])
    fence = "" if move.fence is None else str(move.fence.number)
    beats = "" if move.beats is None else str(move.beats)
    limits = [keys.KEPT_LOG_S, keys.MAX_EVENTS]
    news = [move.level, shown(move.message)]
    beside = [word for pair in move.fields.items() for word in pair]
    return [id_, *prefixes, repr(now), move.to, before, fence, beats, *limits, *news, *beside]


def _refusal(id_: str, move: Move, state: bytes, rest: Sequence[Any]) -> Exception:
    if state == b"missing":
        return JobNotFound(f"no fine-tuning job {id_!r}")
    if state == b"fence":
        return FenceLost(f"job {id_!r} is held by another attempt now")
    if state == b"published":
        return JobConflict(f"job {id_!r} has published its adapter already; delete that instead")
    present = rest[0].decode()
    text = f"job {id_!r} is {present}; it cannot become {move.to} from there"
    return JobConflict(text) if move.fence is None else FenceLost(text)
