"""What the server's answers about batches become; as types.py, with the JSON under `raw`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

#: States after which nothing happens any more.
FINAL = frozenset({"completed", "failed", "expired", "cancelled"})


@dataclass(frozen=True)
class BatchFault:
    """What is wrong with a batch, or with a line of its file; `line` counts from 1."""

    code: str
    message: str
    line: int | None
    param: str | None


@dataclass(frozen=True)
class Batch:
    """A batch of requests as it stands.

    Args:
        id: `batch_…`.
        status: `validating`, `in_progress`, `finalizing`, `completed`, `failed`, `expired`,
            `cancelling` or `cancelled`.
        endpoint: that all its requests are for.
        input_file: id of the file of requests.
        output_file: id of the file of answers, once it is over and if there are some.
        error_file: id of the file of requests that failed, likewise.
        total, completed, failed: how many requests it has, and how they ended so far.
        faults: why it failed.
        metadata: kept with it.
        created_at: in UTC.
    """

    id: str
    status: str
    endpoint: str
    input_file: str
    output_file: str | None
    error_file: str | None
    total: int
    completed: int
    failed: int
    faults: tuple[BatchFault, ...]
    metadata: Mapping[str, str]
    created_at: datetime | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def is_final(self) -> bool:
        """Whether nothing will happen any more."""
        return self.status in FINAL


@dataclass(frozen=True)
class BatchResult:
    """The answer to one request of a batch.

    Args:
        custom_id: the request's own.
        status: of HTTP; None for a request that was not run.
        body: as its endpoint answers.
        error: code and message of a request that was not run.
    """

    custom_id: str
    status: int | None
    body: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def is_good(self) -> bool:
        """Whether the request succeeded."""
        return self.status is not None and self.status < 400
