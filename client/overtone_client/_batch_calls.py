"""Builders of the requests about batches, and parsers of their answers."""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import httpx2

from ._requests import Call
from ._requests import _present as present
from ._requests import _segment as segment
from ._responses import _time as moment
from ._responses import understood
from .batch_types import Batch, BatchFault, BatchResult

BATCHES = "/v1/batches"
PURPOSE = "batch"
_WINDOW = "24h"

Json = Mapping[str, Any]


def path(id_: str, *tail: str) -> str:
    """`/v1/batches/ID/…`."""
    return "/".join([BATCHES, *(segment(part) for part in (id_, *tail))])


def create(input_file: str, endpoint: str, metadata: Mapping[str, str] | None) -> Call:
    """A new batch."""
    body = {"input_file_id": input_file, "endpoint": endpoint, "completion_window": _WINDOW}
    return Call("POST", BATCHES, json={**body, **present({"metadata": metadata})})


def parse(response: httpx2.Response) -> Batch:
    """One batch."""
    return understood(str(response.url), to_batch, response.json)


def to_batch(body: Json) -> Batch:
    """A batch from its JSON."""
    counts = body.get("request_counts") or {}
    errors = body.get("errors") or {}
    return Batch(
        id=str(body["id"]),
        status=str(body["status"]),
        endpoint=str(body["endpoint"]),
        input_file=str(body["input_file_id"]),
        output_file=body.get("output_file_id"),
        error_file=body.get("error_file_id"),
        total=int(counts.get("total", 0)),
        completed=int(counts.get("completed", 0)),
        failed=int(counts.get("failed", 0)),
        faults=tuple(map(_fault, errors.get("data") or ())),
        metadata=body.get("metadata") or {},
        created_at=moment(body.get("created_at")),
        raw=body,
    )


def results(response: httpx2.Response) -> Iterator[BatchResult]:
    """The lines of a file of results. Raises InvalidResponse where one is none."""
    for line in response.content.splitlines():
        yield understood(str(response.url), to_result, partial(json.loads, line))


def to_result(body: Json) -> BatchResult:
    """A line of a file of results from its JSON."""
    response = body.get("response") or {}
    status = response.get("status_code")
    return BatchResult(
        custom_id=str(body["custom_id"]),
        status=None if status is None else int(status),
        body=response.get("body"),
        error=body.get("error"),
        raw=body,
    )


def _fault(body: Json) -> BatchFault:
    return BatchFault(str(body["code"]), str(body["message"]), body.get("line"), body.get("param"))
