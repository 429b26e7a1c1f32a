"""What workers do with training jobs: claim them, report, give them back, end them.

A claim gives a fence (common/fence.py). The holder sends heartbeats; a worker that sees none for a
while takes the job back. It measures the time between heartbeats by its own clock, so clocks of two
machines are never compared, and a registry that was down does not look like a dead worker.
"""

import json
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import redis

from registry.common.fence import Fence
from registry.errors import JobConflict, JobNotFound
from registry.jobs.jobs import Jobs
from registry.jobs.log import Entry, flat
from registry.jobs.moves import Move, Moves, failed, record_of
from registry.jobs.record import HELD, JobError, JobRecord, State, check_job_id
from registry.jobs.samples import MAX_SAMPLED
from registry.redis import keys
from registry.redis.scripts import Observer, Scripts

#: Attempts that may fail one after the other with no checkpoint between them.
MAX_FAILURES = 3
#: Claims of one job, however far each of them came.
MAX_ATTEMPTS = 100
#: A new job whose files are unchecked for so long is queued: its worker checks them.
UNCHECKED_S = 60.0


class Claims:
    """What a worker and its job's process do with jobs; safe to use from many threads.

    Every method raises `RegistryUnavailable` when the server does not answer; those that take a
    fence raise `FenceLost` when the job is not that claim's any more.

    Args:
        client: answers bytes and has socket timeouts, longer than what `take` waits.
        observer: called after every exchange.
    """

    def __init__(self, client: redis.Redis, observer: Observer | None = None) -> None:
        self._scripts = Scripts(client, observer)
        self._moves = Moves(client, self._scripts)
        self._jobs = Jobs(client, observer)

    def take(self, base_name: str, worker: str, wait_s: int, *, now: float) -> JobRecord | None:
        """Claim the next job in this base's queue; None if there is none within `wait_s`."""
        id_ = self._moves.queues.take(base_name, wait_s)
        return None if id_ is None else self.claim(id_, worker, now=now)

    def claim(self, id_: str, worker: str, *, now: float) -> JobRecord | None:
        """Make a queued job this worker's, under a new fence; None if it is not queued.

        It is in `validating_files` then, until its process says that it is `validated`.
        """
        touched = [keys.job(check_job_id(id_)), keys.job_events(id_)]
        args: list[str | int] = [id_, keys.JOBS_IN_STATE, repr(now), worker, keys.MAX_EVENTS]
        state, found = self._scripts.run("job_claim", touched, args)
        return record_of(id_, found) if state == b"claimed" else None

    def beat(self, fence: Fence) -> State | None:
        """Send a heartbeat; return the job's state, or None if another claim holds it now."""
        return self.report(fence, None, ())

    def report(self, fence: Fence, number: int | None, entries: Sequence[Entry]) -> State | None:
        """Store a job's report; return its state, or None if the fence is old: nothing is stored.

        Args:
            fence: of the claim.
            number: counts the reports of a fence from 1: one that is sent again, because its
                answer was lost, is not stored twice. None for a heartbeat alone.
            entries: made by `jobs.log`.

        Raises:
            JobNotFound: there is no such job.
        """
        touched = [keys.job(fence.job), *keys.job_logs(fence.job), keys.TOTALS]
        counted = "" if number is None else str(number)
        limits = [keys.MAX_EVENTS, keys.MAX_METRICS, MAX_SAMPLED]
        args: list[str | int] = [str(fence.number), counted, *limits, *flat(entries)]
        reply = self._scripts.run("job_report", touched, args)
        if not reply:
            raise JobNotFound(f"no fine-tuning job {fence.job!r}")
        state: State = reply[0].decode()
        return state if int(reply[1]) == fence.number and state != "queued" else None

    def validated(self, fence: Fence, *, now: float) -> JobRecord:
        """Move a claimed job to `running`: its spec and its files are checked."""
        return self._moves.make(fence.job, Move("running", "The files are valid", fence=fence), now)

    def give_back(self, fence: Fence, why: str, *, now: float) -> JobRecord:
        """Put a claimed job first in the queue: its worker stops; not counted as a failure."""
        move = Move("queued", why, fence=fence, only=HELD)
        return self._moves.make(fence.job, move, now, first=True)

    def failed_attempt(self, fence: Fence, error: JobError, *, now: float) -> JobRecord:
        """Queue a job again after a failed attempt; fail it if that was one too many."""
        return self._try_again(self._jobs.get(fence.job), fence, None, error, now)

    def fail(self, fence: Fence, error: JobError, *, now: float) -> JobRecord:
        """End a claimed job as failed."""
        return self._moves.make(fence.job, failed(error, fence), now)

    def finish(self, fence: Fence, metrics: dict[str, Any], *, now: float) -> JobRecord:
        """End a running job as succeeded; it has published before."""
        fields = {"metrics": json.dumps(metrics, allow_nan=False)}
        return self._moves.make(
            fence.job, Move("succeeded", "The job succeeded", fence=fence, fields=fields), now
        )

    def held(self, base_name: str) -> list[JobRecord]:
        """Return the jobs of a base that are held by a claim."""
        ids = dict.fromkeys(id_ for state in HELD for id_ in self._jobs.in_state(state))
        return [r for r in self._of(base_name, ids) if r.is_held]

    def take_back(self, seen: JobRecord, *, now: float) -> JobRecord | None:
        """Put a job first in the queue if its holder sent no heartbeat since `seen` was read.

        Returns:
            its record; None if there was a heartbeat, or another worker was first.
        """
        error = JobError("worker_lost", f"worker {seen.worker} gave no sign of life any more")
        try:
            fence = Fence(seen.id, seen.fence)
            return self._try_again(seen, fence, seen.beats, error, now, first=True)
        except JobConflict:
            return None

    def mend(self, base_name: str, *, now: float) -> int:
        """Queue jobs that a crash left without an entry in the queue; return how many.

        They are in state `queued` without an entry, or new and unchecked for a while. One that is
        older than the first entry is put before it.
        """
        unchecked = self._jobs.in_state("validating_files").items()
        late = [id_ for id_, created_at in unchecked if now - created_at > UNCHECKED_S]
        old = [record for record in self._of(base_name, late) if not record.is_held]
        for record in old:
            with suppress(JobConflict):  # another was first
                self._jobs.queue(record.id, now=now)
        queued = self._jobs.in_state("queued")  # before the line: what leaves both is in neither
        line = self._moves.queues.waiting(base_name)
        waiting = set(line)
        missing = (id_ for id_ in queued if id_ not in waiting)
        lost = [each for each in self._of(base_name, missing) if each.state == "queued"]
        first = next((queued[id_] for id_ in line if id_ in queued), -math.inf)
        older = [record for record in lost if record.created_at < first]
        for record in reversed(older):
            self._moves.queues.put(base_name, record.id, first=True)
        for record in lost[len(older) :]:
            self._moves.queues.put(base_name, record.id)
        return len(old) + len(lost)

    def _of(self, base_name: str, ids: Iterable[str]) -> list[JobRecord]:
        """Return those jobs that are a base's."""
        return [r for r in self._jobs.several(ids) if r.spec.base_name == base_name]

    def _try_again(
        self,
        record: JobRecord,
        fence: Fence,
        beats: int | None,
        error: JobError,
        now: float,
        first: bool = False,
    ) -> JobRecord:
        failures = record.failures + 1
        if failures >= MAX_FAILURES or record.attempts >= MAX_ATTEMPTS:
            return self._moves.make(fence.job, failed(error, fence, beats), now)
        why = f"Attempt {record.attempts} ended: {error.message}; it is tried again"
        fields = {"failures": str(failures)}
        again = Move("queued", why, "warn", HELD, fence, beats, fields)
        return self._moves.make(fence.job, again, now, first)
