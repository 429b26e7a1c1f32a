"""Batches of requests, in OpenAI's shapes."""

from typing import Literal

from typing_extensions import TypedDict

from registry.batches.record import State
from registry.batches.requests import Endpoint
from server.api.bodies.files import ListPage


class BatchFault(TypedDict):
    """What is wrong with a batch, or with a line of its file.

    Args:
        code: a stable word for programs.
        message: for people.
        line: counted from 1; null stands for the whole batch.
        param: the field at fault, if one is.
    """

    code: str
    message: str
    line: int | None
    param: str | None


class BatchFaults(TypedDict):
    """Why a batch failed: its first faults."""

    object: Literal["list"]
    data: list[BatchFault]


class RequestCounts(TypedDict):
    """How many requests a batch has, how many succeeded, and how many failed."""

    total: int
    completed: int
    failed: int


class BatchFacts(TypedDict):
    """What OpenAI's batch has no field for.

    Args:
        base: servers of it run the batch.
        server: that runs it now; null where none does.
        attempts: how often a server took it.
    """

    base: str
    server: str | None
    attempts: int


class Batch(TypedDict):
    """A batch of requests.

    Args:
        errors: only of a batch that failed.
        completion_window: one length is supported.
        status: where it is; `failed`, `completed`, `expired` and `cancelled` are final.
        output_file_id: file of answers, once the batch is over and if it has some.
        error_file_id: file of the requests that failed, likewise.
        created_at, expires_at: seconds since 1970.
    """

    id: str
    object: Literal["batch"]
    endpoint: Endpoint
    errors: BatchFaults | None
    input_file_id: str
    completion_window: Literal["24h"]
    status: State
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str]
    overtone: BatchFacts


class BatchPage(ListPage):
    """The caller's batches, the newest first.

    Args:
        has_more: there is a page after this one: ask with `after` = `last_id`.
    """

    data: list[Batch]
