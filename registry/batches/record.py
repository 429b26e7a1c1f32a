"""What the registry knows of one batch, and which states may follow each other.

    validating ──> in_progress ──> finalizing ──> completed
        │               │              │
        └───────────────┴──> cancelling ──> cancelled

Every state but the final ones may become failed or expired: a batch's time may be over, or its file
be lost, also while a cancel is under way. A batch without a claim is cancelled at once. Failed,
completed, expired and cancelled are final.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, Self, get_args

from registry.batches.requests import Endpoint, RequestFault
from registry.common.fence import Fence
from registry.common.spaces import OPERATORS
from registry.errors import BatchNotFound, CorruptRecord
from registry.redis import keys

State = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]
STATES: tuple[State, ...] = get_args(State)
FINAL: tuple[State, ...] = ("failed", "completed", "expired", "cancelled")

#: State -> those it may be reached from.
FROM: Mapping[State, tuple[State, ...]] = {
    "validating": (),
    "in_progress": ("validating",),
    "finalizing": ("in_progress",),
    "completed": ("finalizing",),
    "failed": ("validating", "in_progress", "finalizing", "cancelling"),
    "expired": ("validating", "in_progress", "finalizing", "cancelling"),
    "cancelling": ("validating", "in_progress"),
    "cancelled": ("cancelling",),
}

BATCH_ID = re.compile(r"batch_[0-9a-f]{24}")


@dataclass(frozen=True)
class BatchSpec:
    """What a batch is to do; never changes, but for the tenant when that is renamed.

    Args:
        endpoint: that every request names.
        input_file: id of the file of requests.
        base_name: servers of this base run it.
        window_s: it expires so many seconds after its creation.
        created_by: the tenant.
        metadata: the caller's own words.
        space: of the tenant's adapters' names.
    """

    endpoint: Endpoint
    input_file: str
    base_name: str
    window_s: float
    created_by: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    space: str = OPERATORS

    def to_json(self) -> str:
        """Return the spec as JSON, the same text for the same spec."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the spec that `to_json` wrote; fields of a later program are ignored."""
        given = json.loads(text)
        return cls(**{name: given[name] for name in cls.__dataclass_fields__ if name in given})


@dataclass(frozen=True)
class RequestCounts:
    """How many requests a batch has, how many are answered, and how many have failed."""

    total: int = 0
    completed: int = 0
    failed: int = 0


@dataclass(frozen=True)
class BatchRecord:
    """One batch as it stands.

    Args:
        id: `batch_` and 24 hex digits.
        spec: what it is to do.
        state: where it is in the graph above.
        created_at, expires_at: seconds since 1970.
        reached_at: state -> when it was first in it, on the same clock.
        counts: of its requests, as last reported.
        fence: number of the latest claim; 0 before the first.
        beats: reports since that claim.
        owner: the server that holds it, empty if none does.
        output_file, error_file: ids of the files of answers and of failed requests.
        faults: why it failed.
    """

    id: str
    spec: BatchSpec
    state: State
    created_at: float
    expires_at: float
    reached_at: Mapping[str, float]
    counts: RequestCounts
    fence: int
    beats: int
    owner: str
    output_file: str | None
    error_file: str | None
    faults: tuple[RequestFault, ...]

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in FINAL

    @property
    def claim(self) -> Fence:
        """Return the latest claim."""
        return Fence(self.id, self.fence)

    @classmethod
    def read(cls, id_: str, stored: Mapping[bytes, bytes]) -> Self:
        """Read a batch's hash.

        Raises:
            CorruptRecord: a field is missing or not what this program writes.
        """
        try:
            return cls._read(id_, {name.decode(): value.decode() for name, value in stored.items()})
        except (KeyError, ValueError, TypeError) as error:
            raise CorruptRecord(f"{keys.batch(id_)} is not a batch's record") from error

    @classmethod
    def _read(cls, id_: str, text: Mapping[str, str]) -> Self:
        state = text["state"]
        if state not in STATES:
            raise ValueError(state)
        counts = RequestCounts(*(int(text.get(name, 0)) for name in RequestCounts.__annotations__))
        return cls(
            id=id_,
            spec=BatchSpec.from_json(text["spec"]),
            state=state,
            created_at=float(text["created_at"]),
            expires_at=float(text["expires_at"]),
            reached_at={
                name: float(text[keys.REACHED_AT + name])
                for name in STATES
                if keys.REACHED_AT + name in text
            },
            counts=counts,
            fence=int(text.get("fence", 0)),
            beats=int(text.get("beats", 0)),
            owner=text.get("owner", ""),
            output_file=text.get("output_file") or None,
            error_file=text.get("error_file") or None,
            faults=tuple(RequestFault(**fault) for fault in json.loads(text.get("faults", "[]"))),
        )


def check_batch_id(id_: str) -> str:
    """Return `id_` unchanged; it may be part of a key or a path afterwards.

    Raises:
        BatchNotFound: no batch can have it.
    """
    if not BATCH_ID.fullmatch(id_):
        raise BatchNotFound(f"no batch {ascii(id_[:60])}: an id is 'batch_' and 24 hex digits")
    return id_
