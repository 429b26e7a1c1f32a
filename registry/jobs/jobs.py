"""What callers do with training jobs: create, stop and read them. Workers: claims.py.

The graph of states: record.py. Every change is one transaction; the queue (queue.py) may be lost
and is restored from the records.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import redis

from registry.common.fence import Fence
from registry.common.limits import UNLIMITED, Limits
from registry.common.names import check_alias, check_name
from registry.common.notes import check_notes
from registry.common.pages import MAX_PAGE, check_limit
from registry.errors import FileNotFound, InvalidArgument, JobNotFound
from registry.jobs.log import Checkpoint, Event, MetricPoint
from registry.jobs.moves import Move, Moves, failed, record_of
from registry.jobs.record import STATES, JobError, JobRecord, State, check_job_id
from registry.jobs.samples import MAX_SAMPLED, Samples
from registry.jobs.spec import JobSpec
from registry.redis import hashes, keys
from registry.redis.scripts import Observer, Scripts

#: The published version's record holds all of it once, its method's config twice.
MAX_SPEC_BYTES = 24 * 1024

Records = list[JobRecord]  # `list` is a method's name inside the class


class Jobs:
    """The training jobs behind one Redis client; safe to use from many threads.

    Every method raises `RegistryUnavailable` when the server does not answer, and `JobNotFound`
    when there is no such job.

    Args:
        client: answers bytes (`decode_responses=False`) and has socket timeouts.
        observer: called after every exchange: operation, seconds, and whether the server answered.
    """

    def __init__(self, client: redis.Redis, observer: Observer | None = None) -> None:
        self._client = client
        self._scripts = Scripts(client, observer)
        self._moves = Moves(client, self._scripts)

    def create(self, spec: JobSpec, *, now: float, limits: Limits = UNLIMITED) -> JobRecord:
        """Write a job's record in `validating_files`; `queue` it when its files are checked.

        Twice is harmless: the same id gives the record that is there.

        Raises:
            FileNotFound: a file of it is not uploaded.
            QuotaExceeded: the tenant has as many jobs, or adapters, as its limits allow.
            InvalidName: the adapter's name or alias breaks its rule.
            InvalidArgument: the spec is too large, or not JSON.
        """
        check_job_id(spec.id)
        check_name(spec.name)
        if spec.alias is not None:
            check_alias(spec.alias)
        files = [each for each in (spec.training_file, spec.validation_file) if each]
        touched = [keys.job(spec.id), keys.job_events(spec.id), keys.JOBS, keys.FILES]
        touched += [keys.names(spec.space)]
        prefixes = [keys.JOBS_IN_STATE, keys.JOBS_OF, keys.FILE_USERS]
        facts = [repr(now), STATES[0], spec.created_by, _stored(spec)]
        args = [spec.id, *prefixes, *facts, spec.stored_name]
        args += [*limits.words("jobs", "adapters"), *files]
        state, found, *used = self._scripts.run("job_create", touched, args)
        if state == b"full":
            raise limits.exceeded(found.decode(), int(used[0]))
        if state == b"no_file":
            raise FileNotFound(f"no file {found.decode()!r}; upload it first, or name another")
        return record_of(spec.id, found)

    def queue(self, id_: str, *, now: float) -> JobRecord:
        """Queue a new job once its spec and files are checked, as far as that needs no base.

        Raises:
            JobConflict: it is not new any more.
        """
        fresh = Fence(id_, 0)
        move = Move("queued", "The job is queued", only=("validating_files",), fence=fresh)
        return self._moves.make(id_, move, now)

    def refuse(self, id_: str, error: JobError, *, now: float) -> JobRecord:
        """End a job as failed: its files or its spec are wrong, seen before it ran.

        Raises:
            JobConflict: it has ended, or is paused.
        """
        return self._moves.make(id_, failed(error), now)

    def cancel(self, id_: str, *, now: float) -> JobRecord:
        """End a job for good; a running one stops within a step.

        Raises:
            JobConflict: it has ended otherwise, or has published already.
        """
        return self._moves.make(id_, Move("cancelled", "The job was cancelled"), now)

    def pause(self, id_: str, *, now: float) -> JobRecord:
        """Hold a job until it is resumed; a running one writes a checkpoint within a step.

        Raises:
            JobConflict: it has ended.
        """
        return self._moves.make(id_, Move("paused", "The job was paused"), now)

    def resume(self, id_: str, *, now: float) -> JobRecord:
        """Queue a paused job again.

        Raises:
            JobConflict: it is not paused.
        """
        return self._moves.make(id_, Move("queued", "The job was resumed", only=("paused",)), now)

    def get(self, id_: str) -> JobRecord:
        """Return a job as it stands."""
        with self._scripts.asking("job"):
            stored: Any = self._client.hgetall(keys.job(check_job_id(id_)))
        if not stored:
            raise JobNotFound(f"no fine-tuning job {id_!r}")
        return JobRecord.read(id_, stored)

    def list(
        self,
        limit: int,
        after: str | None = None,
        created_by: str | None = None,
        state: State | None = None,
    ) -> Records:
        """Return up to `limit` jobs, the newest first.

        Args:
            limit: 1 to `MAX_PAGE`. Fewer than this means that there are no more.
            after: the last job of the page before.
            created_by: only this tenant's jobs.
            state: only jobs in it, of all tenants.

        Raises:
            JobNotFound: `after` is no job of this list.
            InvalidArgument: the limit is out of range.
        """
        index = keys.JOBS if created_by is None else keys.JOBS_OF + created_by
        index = keys.JOBS_IN_STATE + state if state else index
        place = check_job_id(after) if after else ""
        found = hashes.page(self._scripts, index, limit, place, keys.JOB)
        if found is None:
            raise JobNotFound(f"no fine-tuning job {after!r} to list what comes after")
        return [JobRecord.read(*each) for each in found]

    def in_state(self, state: State) -> dict[str, float]:
        """Return the ids of all jobs in a state with their creation, the oldest first."""
        with self._scripts.asking("jobs_in_state"):
            found: Any = self._client.zrange(keys.JOBS_IN_STATE + state, 0, -1, withscores=True)
        return {id_.decode(): created_at for id_, created_at in found}

    def several(self, ids: Iterable[str]) -> Iterator[JobRecord]:
        """Yield the records of jobs in the order of their ids; any number of them."""
        found = hashes.several(self._client, self._scripts, "jobs_several", keys.JOB, ids)
        yield from (JobRecord.read(*each) for each in found)

    def counts(self) -> dict[State, int]:
        """Return how many jobs are in each state."""
        indexes = (keys.JOBS_IN_STATE + state for state in STATES)
        found = hashes.sizes(self._client, self._scripts, "job_counts", indexes)
        return dict(zip(STATES, found, strict=True))

    def totals(self) -> dict[str, float]:
        """Return the `steps` and `tokens` trained so far by all jobs, and the latest `loss`."""
        with self._scripts.asking("job_totals"):
            stored: Any = self._client.hgetall(keys.TOTALS)
        found = {name.decode(): float(value) for name, value in stored.items()}
        return {"steps": 0.0, "tokens": 0.0, **found}

    def events(self, id_: str, limit: int, after: str | None = None) -> Sequence[Event]:
        """Return up to `limit` events after the one of that id, the oldest first."""
        found = self._entries("job_events", keys.job_events(check_job_id(id_)), limit, after)
        return [Event.read(*entry) for entry in found]

    def last_events(self, id_: str, limit: int, before: str | None = None) -> Sequence[Event]:
        """Return up to `limit` events before the one of that id, the newest first."""
        key, end = keys.job_events(check_job_id(id_)), f"({_place(before)}" if before else "+"
        with self._scripts.asking("job_events"):
            found: Any = self._client.xrevrange(key, end, "-", count=check_limit(limit))
        return [Event.read(*entry) for entry in found]

    def metrics(self, id_: str, limit: int, after: str | None = None) -> Sequence[MetricPoint]:
        """Return up to `limit` measurements after the one of that id, by their steps."""
        found = self._entries("job_metrics", keys.job_metrics(check_job_id(id_)), limit, after)
        return [MetricPoint.read(*entry) for entry in found]

    def checkpoints(
        self, id_: str, limit: int = MAX_PAGE, after: str | None = None
    ) -> Sequence[Checkpoint]:
        """Return up to `limit` checkpoints after the one of that id, by their steps."""
        key = keys.job_checkpoints(check_job_id(id_))
        return [Checkpoint.read(*e) for e in self._entries("job_checkpoints", key, limit, after)]

    def samples(self, id_: str) -> dict[int, Samples]:
        """Return what the adapter answered at the latest checkpoints, by their steps."""
        key = keys.job_samples(check_job_id(id_))
        found = [Samples.read(*e) for e in self._entries("job_samples", key, MAX_SAMPLED, None)]
        return {one.step: one for one in found}

    def _entries(self, op: str, key: str, limit: int, after: str | None) -> Any:
        start = f"({_place(after)}" if after else "-"
        with self._scripts.asking(op):
            return self._client.xrange(key, start, "+", count=check_limit(limit))


def _place(id_: str) -> str:
    """Return a stream entry's id, which a caller gave, if it is one.

    Raises:
        InvalidArgument: it is not.
    """
    milliseconds, _, count = id_.partition("-")
    if not (milliseconds.isdecimal() and count.isdecimal() and id_.isascii() and len(id_) <= 40):
        raise InvalidArgument(f"{ascii(id_[:60])} is not the id of an entry, such as '12-0'")
    return id_


def _stored(spec: JobSpec) -> str:
    """Return the spec as it is stored, if the version that it makes can tell of it, too.

    Raises:
        InvalidArgument: it is not JSON, too deep or too large.
    """
    check_notes({"training": {"spec": asdict(spec)}}, {})
    text = spec.to_json()
    if len(text) > MAX_SPEC_BYTES:
        raise InvalidArgument(
            f"the job is {len(text)} bytes as JSON, of which metadata and the method's config are "
            f"yours; the limit is {MAX_SPEC_BYTES}"
        )
    return text
