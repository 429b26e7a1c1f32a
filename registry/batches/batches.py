"""What callers do with batches: create, cancel and read them. Their servers: claims.py."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import redis

from registry.batches.record import (
    FINAL,
    FROM,
    STATES,
    BatchRecord,
    BatchSpec,
    RequestCounts,
    State,
    check_batch_id,
)
from registry.common.fence import Fence
from registry.errors import (
    BatchNotFound,
    FenceLost,
    FileNotFound,
    InvalidArgument,
    JobConflict,
)
from registry.files import FileRecord
from registry.redis import hashes, keys
from registry.redis.scripts import Observer, Scripts

MAX_SPEC_BYTES = 24 * 1024
Records = list[BatchRecord]  # `list` is a method's name inside the class


class Batches:
    """The batches behind one Redis client; safe to use from many threads.

    Every method raises `RegistryUnavailable` when the server does not answer, and `BatchNotFound`
    when there is no such batch.

    Args:
        client: answers bytes (`decode_responses=False`) and has socket timeouts.
        observer: called after every exchange: operation, seconds, and whether the server answered.
    """

    def __init__(self, client: redis.Redis, observer: Observer | None = None) -> None:
        self._client = client
        self._scripts = Scripts(client, observer)

    def create(self, spec: BatchSpec, num_requests: int, *, now: float) -> BatchRecord:
        """Write a batch's record in `validating`; its file cannot be deleted until it is over.

        Raises:
            FileNotFound: its file is not uploaded.
            InvalidArgument: the spec is too large.
        """
        text = spec.to_json()
        if len(text) > MAX_SPEC_BYTES:
            raise InvalidArgument(f"the batch is {len(text)} bytes as JSON, over {MAX_SPEC_BYTES}")
        id_ = f"batch_{secrets.token_hex(12)}"
        touched = [keys.batch(id_), keys.BATCHES, keys.FILES]
        indexes = [
            keys.BATCHES_IN_STATE + STATES[0],
            keys.BATCHES_OF + spec.created_by,
            keys.BATCHES_OPEN + spec.base_name,
            keys.FILE_USERS + spec.input_file,
        ]
        times = [repr(now), repr(now + spec.window_s)]
        facts = [STATES[0], str(num_requests), spec.input_file, text]
        state, found = self._scripts.run("batch_create", touched, [id_, *indexes, *times, *facts])
        if state == b"no_file":
            raise FileNotFound(f"no file {found.decode()!r}; upload it first, or name another")
        return record_of(id_, found)

    def cancel(self, id_: str, *, now: float) -> BatchRecord:
        """Stop a batch: its server keeps what is answered; without one it is cancelled at once.

        Raises:
            JobConflict: all its requests are answered, or it is over.
        """
        record = self.get(id_)
        if record.state in ("cancelling", "cancelled"):
            return record
        return BatchMoves(self._scripts).make(record, Move("cancelling"), now=now)

    def get(self, id_: str) -> BatchRecord:
        """Return a batch as it stands."""
        with self._scripts.asking("batch"):
            stored: Any = self._client.hgetall(keys.batch(check_batch_id(id_)))
        if not stored:
            raise BatchNotFound(f"no batch {id_!r}")
        return BatchRecord.read(id_, stored)

    def list(self, limit: int, after: str | None = None, created_by: str | None = None) -> Records:
        """Return up to `limit` batches, the newest first; as `Jobs.list`.

        Raises:
            BatchNotFound: `after` is no batch of this list.
            InvalidArgument: the limit is out of range.
        """
        index = keys.BATCHES if created_by is None else keys.BATCHES_OF + created_by
        place = check_batch_id(after) if after else ""
        found = hashes.page(self._scripts, index, limit, place, keys.BATCH)
        if found is None:
            raise BatchNotFound(f"no batch {after!r} to list what comes after")
        return [BatchRecord.read(*each) for each in found]

    def open(self, base_name: str) -> Records:
        """Return all batches of a base that are not over, the oldest first."""
        with self._scripts.asking("batches_open"):
            stored: Any = self._client.zrange(keys.BATCHES_OPEN + base_name, 0, -1)
        ids = (id_.decode() for id_ in stored)
        found = hashes.several(self._client, self._scripts, "batches_several", keys.BATCH, ids)
        return [BatchRecord.read(*each) for each in found]

    def counts(self) -> dict[State, int]:
        """Return how many batches are in each state."""
        indexes = (keys.BATCHES_IN_STATE + state for state in STATES)
        found = hashes.sizes(self._client, self._scripts, "batch_counts", indexes)
        return dict(zip(STATES, found, strict=True))


@dataclass(frozen=True)
class Move:
    """A change of state.

    Args:
        to: the new state.
        fence: the claim under which it is made; None: a caller's.
        fields: what is written beside the state.
        files: records that become visible with it.
    """

    to: State
    fence: Fence | None = None
    fields: dict[str, str] = field(default_factory=dict)
    files: Sequence[FileRecord] = ()

    @property
    def words(self) -> list[str]:
        """Return the fields as the script takes them."""
        return [word for pair in self.fields.items() for word in pair]


class BatchMoves:
    """Makes moves: `batch_move.lua`."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    def make(self, record: BatchRecord, move: Move, *, now: float) -> BatchRecord:
        """Return the batch's record after the move; one that was made before changes nothing.

        Raises:
            BatchNotFound: there is no such batch.
            FenceLost: the fence is an older claim's.
            JobConflict: the present state does not allow it.
        """
        id_, spec = record.id, record.spec
        touched = [keys.batch(id_), keys.FILES, keys.FILES_IN_ORDER]
        fence = "" if move.fence is None else str(move.fence.number)
        state = [repr(now), move.to, ",".join(FROM[move.to]), fence, str(int(move.to in FINAL))]
        indexes = [
            keys.BATCHES_IN_STATE,
            keys.BATCHES_OPEN + spec.base_name,
            keys.FILE_USERS + spec.input_file,
            keys.FILES_OF + spec.created_by,
        ]
        files = [word for one in move.files for word in (one.id, repr(one.created_at), one.body())]
        args = [id_, *state, *indexes, str(len(move.files)), *files, *move.words]
        found, *rest = self._scripts.run("batch_move", touched, args)
        if found not in (b"moved", b"already"):
            raise _refusal(id_, move, found, rest)
        return record_of(id_, rest[0])


def record_of(id_: str, pairs: Sequence[bytes]) -> BatchRecord:
    """Return the record that a script gave as field, value, field, value..."""
    return BatchRecord.read(id_, hashes.fields_of(pairs))


def faults_field(faults: Sequence[Any]) -> dict[str, str]:
    """Return faults as a field of a batch's record."""
    return {"faults": json.dumps([asdict(fault) for fault in faults])}


def counts_fields(counts: RequestCounts) -> dict[str, str]:
    """Return counts as fields of a batch's record."""
    return {name: str(value) for name, value in asdict(counts).items()}


def _refusal(id_: str, move: Move, found: bytes, rest: Sequence[Any]) -> Exception:
    if found == b"missing":
        return BatchNotFound(f"no batch {id_!r}")
    if found == b"fence":
        return FenceLost(f"batch {id_!r} is held by another server now")
    present = rest[0].decode()
    if move.to == "cancelling":
        return JobConflict(f"batch {id_!r} is {present}; it cannot be cancelled any more")
    return JobConflict(f"batch {id_!r} is {present}; it cannot become {move.to} from there")
