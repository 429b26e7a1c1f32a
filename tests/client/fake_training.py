"""Files and jobs of the small server: shapes only; a job is whatever the test says it is."""

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

PNG = b"\x89PNG\r\n\x1a\n"


@dataclass
class Training:
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    streams: list[dict[str, str]] = field(default_factory=list)
    faults: str | None = None  # of the next file
    digest: str = "sha256:" + "1" * 64  # of what jobs make
    ending: str = "succeeded"
    workers: list[dict[str, Any]] = field(default_factory=list)
    breaks: int = 0  # streams that end in the middle
    ends_at_once: bool = False  # a job, as it is filed

    def add_file(self, name: str, data: bytes, purpose: str = "fine-tune") -> dict[str, Any]:
        id_ = f"file-{len(self.files):024x}"
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.contents[id_] = data
        self.files[id_] = {
            "id": id_,
            "object": "file",
            "bytes": len(data),
            "created_at": 1_700_000_000,
            "filename": name,
            "purpose": purpose,
            "status": "error" if self.faults else "processed",
            "status_details": self.faults,
            "overtone": {"digest": digest, "num_examples": 3, "endpoint": "/v1/completions"},
        }
        return self.files[id_]

    def add_job(self, body: dict[str, Any]) -> dict[str, Any]:
        id_ = f"ftjob-{len(self.jobs):024x}"
        adapter = {"method": "fourierft", **body.get("adapter", {})}
        self.jobs[id_] = {
            "id": id_,
            "status": "queued",
            "model": body["model"],
            "adapter": adapter,
            "created_at": 1_700_000_000,
            "error": None,
            "fine_tuned_model": None,
            "overtone": {"progress": {"step": 0, "num_steps": 0}, "result": None},
        }
        if self.ends_at_once:
            self.end(id_)
        return self.jobs[id_]

    def end(self, id_: str) -> None:
        job = self.jobs[id_]
        job["status"] = self.ending
        job["overtone"]["progress"] = {"step": 2, "num_steps": 2, "seconds_left": 0.0}
        if self.ending == "succeeded":
            name = f"{job['adapter']['name']}@1"
            metrics = {"eval_loss": 1.25, "base": {"eval_loss": 2.5}}
            job["fine_tuned_model"] = name
            result = {"reference": name, "digest": self.digest, "metrics": metrics}
            job["overtone"]["result"] = result
        if self.ending == "failed":
            job["error"] = {"code": "loss_not_finite", "message": "NaN at step 1", "param": None}


def add_training(app: FastAPI, state: Any, missing: Any) -> None:
    """Add the routes; `missing` makes the error of what is not there."""
    _add_files(app, state, missing)
    _add_jobs(app, state, missing)

    @app.get("/v1/workers")
    async def workers() -> dict[str, Any]:
        return {"object": "list", "data": state.training.workers}


def _page(items: list[dict[str, Any]], limit: int, after: str | None) -> dict[str, Any]:
    items = list(reversed(items))
    start = next((i + 1 for i, item in enumerate(items) if item["id"] == after), 0)
    data = items[start : start + min(limit, 2)]  # this server's pages are short
    return {"object": "list", "data": data, "has_more": start + len(data) < len(items)}


def _add_files(app: FastAPI, state: Any, missing: Any) -> None:
    @app.post("/v1/files")
    async def upload(request: Request) -> dict[str, Any]:
        async with request.form() as form:
            content = await form["file"].read()
            return state.training.add_file(form["file"].filename, content, form["purpose"])

    @app.get("/v1/files")
    async def files(limit: int, after: str | None = None) -> dict[str, Any]:
        return _page(list(state.training.files.values()), limit, after)

    @app.get("/v1/files/{id_}")
    async def file(id_: str) -> dict[str, Any]:
        return state.training.files.get(id_) or missing("file", id_)

    @app.get("/v1/files/{id_}/content")
    async def content(id_: str) -> Response:
        return Response(state.training.contents[id_])

    @app.delete("/v1/files/{id_}")
    async def delete(id_: str) -> dict[str, Any]:
        state.training.files.pop(id_)
        return {"deleted": True}


def _add_jobs(app: FastAPI, state: Any, missing: Any) -> None:
    jobs = "/v1/fine_tuning/jobs"

    @app.post(jobs)
    async def create(request: Request) -> dict[str, Any]:
        state.training.bodies.append(await request.json())
        return state.training.add_job(state.training.bodies[-1])

    @app.get(jobs)
    async def page(limit: int, after: str | None = None) -> dict[str, Any]:
        return _page(list(state.training.jobs.values()), limit, after)

    @app.get(jobs + "/{id_}")
    async def show(id_: str) -> dict[str, Any]:
        return state.training.jobs.get(id_) or missing("fine-tuning job", id_)

    @app.post(jobs + "/{id_}/{move}")
    async def move(id_: str, move: str) -> dict[str, Any]:
        states = {"cancel": "cancelled", "pause": "paused", "resume": "queued"}
        state.training.jobs[id_]["status"] = states[move]
        return state.training.jobs[id_]

    @app.get(jobs + "/{id_}/plot.png")
    async def plot(id_: str) -> Response:
        return Response(PNG)

    @app.get(jobs + "/{id_}/metrics")
    async def curve(limit: int, after: str | None = None) -> dict[str, Any]:
        points = [{"id": f"{n}-0", "step": n, "train_loss": 1 / n} for n in (3, 2, 1)]
        return _page(points, limit, after)

    @app.get(jobs + "/{id_}/checkpoints")
    async def checkpoints(limit: int) -> dict[str, Any]:
        cut = {
            "prompt": "3+3=\x1b[2J",
            "expected": "6",
            "answer": "7\n7",
            "finish_reason": "length",
        }
        own = {
            "samples": [{**cut, "prompt": "2+2=", "answer": "4", "finish_reason": "stop"}, cut],
            "samples_source": "validation_file",
            "samples_left_out": None,
        }
        found = {"id": "ftckpt-1", "step_number": 5, "created_at": 1}
        return _page([found, {**found, "id": "ftckpt-2", "overtone": own}], limit, None)

    @app.get(jobs + "/{id_}/events", response_model=None)
    async def events(request: Request, id_: str) -> dict[str, Any] | StreamingResponse:
        query = dict(request.query_params)
        if "stream" not in query:
            return _page([_line(n) for n in (1, 2, 3)], int(query["limit"]), query.get("after"))
        state.training.streams.append(query)
        told = _told(state.training, id_, query)
        return StreamingResponse(told, media_type="text/event-stream")


async def _told(training: Training, id_: str, query: dict[str, str]) -> AsyncIterator[str]:
    """What comes after what the query says is known, as the server's own streams."""
    if "after" not in query:
        yield _event(_line(1))
    for step in range(int(query.get("after_step", 0)) + 1, 3):
        data = {"step": step, "num_steps": 2, "seconds_left": 2.0 - step, "train_loss": 3.0 - step}
        yield _event({**_line(step), "type": "metrics", "data": data})
        if training.breaks:
            training.breaks -= 1
            return
    yield ": alive\n\n"
    if training.breaks:
        training.breaks -= 1
        return
    training.end(id_)
    yield _event(_line(9))
    yield "data: [DONE]\n\n"


def _line(number: int) -> dict[str, Any]:
    line = {"id": f"ftevent-{number}-0", "created_at": 5, "level": "info", "type": "message"}
    return {**line, "message": f"word {number}", "data": {}}


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"
