"""What servers do with batches: claim them, report, give them back, end them.

A claim gives a fence (common/fence.py). The holder sends heartbeats; a server that sees none for a
while (common/silence.py) claims the batch for itself. The older claim can report nothing from then
on, and what it still writes lies in a segment that nothing reads (segments.py).
"""

from collections.abc import Sequence
from typing import Any

import redis

from registry.batches.batches import (
    Batches,
    BatchMoves,
    Move,
    counts_fields,
    faults_field,
    record_of,
)
from registry.batches.record import BatchRecord, RequestCounts, State, check_batch_id
from registry.batches.requests import RequestFault
from registry.common.fence import Fence
from registry.files import FileRecord
from registry.redis import keys
from registry.redis.scripts import Observer, Scripts


class BatchClaims:
    """What a server does with batches that it runs; safe to use from many threads.

    Every method raises `RegistryUnavailable` when the registry does not answer; those that move a
    batch raise `FenceLost` when it is not that claim's any more, and `JobConflict` when its state
    does not allow it: it was cancelled meanwhile.

    Args:
        client: answers bytes and has socket timeouts.
        observer: called after every exchange.
    """

    def __init__(self, client: redis.Redis, observer: Observer | None = None) -> None:
        self._scripts = Scripts(client, observer)
        self._moves = BatchMoves(self._scripts)
        self._batches = Batches(client, observer)

    def open(self, base_name: str) -> list[BatchRecord]:
        """Return the batches of a base that are not over, the oldest first."""
        return self._batches.open(base_name)

    def claim(self, seen: BatchRecord, owner: str) -> BatchRecord | None:
        """Make a batch this server's if nothing has happened to it since `seen` was read.

        Args:
            seen: without an owner, or with one that was silent for long.
            owner: this server's name.

        Returns:
            its record under the new fence; None if its holder reported, or another was first.
        """
        args = [owner, str(seen.fence), str(seen.beats)]
        state, found = self._scripts.run("batch_claim", [keys.batch(seen.id)], args)
        return record_of(seen.id, found) if state == b"claimed" else None

    def report(self, fence: Fence, counts: RequestCounts | None = None) -> State | None:
        """Send a heartbeat, with the counts so far; return the state, None if the fence is old."""
        return self._reported(fence, "beat", counts)

    def release(self, fence: Fence, counts: RequestCounts | None = None) -> None:
        """Give a batch back: another server takes it at once. Harmless if the fence is old."""
        self._reported(fence, "release", counts)

    def begin(self, held: BatchRecord, *, now: float) -> BatchRecord:
        """Move a claimed batch to `in_progress`: its file is valid."""
        return self._moves.make(held, Move("in_progress", held.claim), now=now)

    def fail(self, held: BatchRecord, faults: Sequence[RequestFault], *, now: float) -> BatchRecord:
        """End a claimed batch as failed."""
        return self._moves.make(held, Move("failed", held.claim, faults_field(faults)), now=now)

    def finalize(self, held: BatchRecord, *, now: float) -> BatchRecord:
        """Move a claimed batch to `finalizing`: every request is answered."""
        return self._moves.make(held, Move("finalizing", held.claim), now=now)

    def finish(
        self,
        held: BatchRecord,
        to: State,
        counts: RequestCounts,
        output: FileRecord | None,
        errors: FileRecord | None,
        *,
        now: float,
    ) -> BatchRecord:
        """End a claimed batch; its files become visible in the same transaction.

        Args:
            held: the batch.
            to: `completed`, `expired` or `cancelled`.
            counts: of its requests.
            output: of answers, with its bytes in the store; None without any.
            errors: likewise of failed requests.
            now: seconds since 1970.
        """
        files = {"output_file": output, "error_file": errors}
        given = {name: one for name, one in files.items() if one is not None}
        fields = {name: one.id for name, one in given.items()} | counts_fields(counts)
        move = Move(to, held.claim, fields, tuple(given.values()))
        return self._moves.make(held, move, now=now)

    def _reported(self, fence: Fence, op: str, counts: RequestCounts | None) -> State | None:
        fields = counts_fields(counts) if counts else {}
        words = [word for pair in fields.items() for word in pair]
        touched = [keys.batch(check_batch_id(fence.job))]
        reply: Any = self._scripts.run("batch_report", touched, [op, str(fence.number), *words])
        return reply[0].decode() if reply else None
