"""Files and jobs over REST with as few words as possible, and a worker's part of them by hand."""

import json
import time
from typing import Any

import httpx2

from live import Live
from registry import Fence, JobRecord
from registry.jobs import log as job_log
from waiting import until

JOBS = "/v1/fine_tuning/jobs"
TEXTS = [{"text": f"line number {number}"} for number in range(20)]


def jsonl(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def post_file(
    server: Live, content: bytes | None = None, name: str = "a.jsonl", **more: Any
) -> httpx2.Response:
    content = jsonl(*TEXTS) if content is None else content
    fields = {"purpose": "fine-tune", **more.pop("data", {})}
    return server.http.post("/v1/files", data=fields, files={"file": (name, content)}, **more)


def file_id(server: Live, content: bytes | None = None, **more: Any) -> str:
    answer = post_file(server, content, **more)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def post_job(server: Live, file: str | None = None, **more: Any) -> httpx2.Response:
    headers = more.pop("headers", {})
    file = file or file_id(server, headers=headers)
    body = {"model": "tiny", "training_file": file, **more}
    return server.http.post(JOBS, json=body, headers=headers)


def new_job(server: Live, file: str | None = None, **more: Any) -> dict[str, Any]:
    answer = post_job(server, file, **more)
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    return job


def job_told(server: Live, id_: str, tail: str = "", **query: Any) -> dict[str, Any]:
    answer = server.http.get(f"{JOBS}/{id_}{tail}", params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def taken(server: Live, id_: str) -> tuple[JobRecord, Fence]:
    """Take a job out of the line as a worker does."""
    claims = server.service.registry.claims
    record = until(lambda: claims.take("tiny", "by hand", 1, now=time.time()))
    assert record is not None
    assert record.id == id_
    return record, Fence(record.id, record.fence)


def claimed(server: Live, id_: str) -> tuple[JobRecord, Fence]:
    """Take a job out of the line, and find its files valid, as a worker does."""
    _, fence = taken(server, id_)
    return server.service.registry.claims.validated(fence, now=time.time()), fence


def report(server: Live, fence: Fence, number: int, *entries: job_log.Entry) -> None:
    assert server.service.registry.claims.report(fence, number, entries) == "running"
