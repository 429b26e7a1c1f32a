"""A small server that speaks the API's shapes: real HTTP, state in a dictionary, no model.

Some model names misbehave on purpose: `cut`, `fails-midway`, `garbled`, `hangs`, `no-template`.
"""

import asyncio
import base64
import hashlib
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

import server.api.parameters  # noqa: F401  (the path converter `adapter`)

from .fake_batches import Batches, add_batches
from .fake_encoders import add_encoders
from .fake_keys import Keys, add_keys
from .fake_training import Training, add_training

API_KEY = "sk-right"
caller_left = threading.Event()  # set when the caller of `hangs` has closed its stream


class Fault(Exception):
    def __init__(self, status: int, code: str, message: str, **more: Any) -> None:
        self.status, self.headers = status, more.pop("headers", {})
        self.error = {"message": message, "type": "error", "param": None, "code": code, **more}


@dataclass
class State:
    adapters: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    aliases: dict[str, dict[str, int]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    form: dict[str, Any] = field(default_factory=dict)
    training: Training = field(default_factory=Training)
    batches: Batches = field(default_factory=Batches)
    keys: Keys = field(default_factory=Keys)
    next_fault: Fault | None = None
    lasting_fault: Fault | None = None
    needs_key: bool = False
    left_out: int = 0  # texts that an encoder does not answer

    def add(self, name: str, data: bytes = b"coefficients", **more: Any) -> dict[str, Any]:
        versions = self.adapters.setdefault(name, [])
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        record = {
            "object": "adapter",
            "name": name,
            "version": len(versions) + 1,
            "digest": digest,
            "method": "fourierft",
            "method_config": {"n": 8},
            "base": {"name": "tiny", "fingerprint": "f1", "verified": False},
            "target_modules": ["q_proj", "v_proj"],
            "num_coefficients": 16,
            "size_bytes": len(data),
            "created_at": 1_700_000_000,
            "created_by": "tests",
            "metadata": {},
            "metrics": {},
            "owner": "alice",
            "shared": False,
            "shared_with": [],
            "residency": "disk",
            **more,
        }
        self.aliases.setdefault(name, {})["latest"] = record["version"]
        versions.append(record)
        self.files[f"{name}@{record['version']}"] = data
        return self.record(name)

    def record(self, name: str, version: int | None = None) -> dict[str, Any]:
        if name not in self.adapters:
            raise Fault(404, "model_not_found", f"no adapter {name!r}")
        wanted = version or self.aliases[name]["latest"]
        for record in self.adapters[name]:
            if record["version"] == wanted:
                return {**record, "aliases": self.aliases[name]}
        raise Fault(404, "not_found", f"{name!r} has no version {wanted}")


def create_app(state: State) -> FastAPI:
    app = FastAPI()
    _answer_faults(app, state)
    _add_adapters(app, state)
    _add_aliases(app, state)
    _add_models(app, state)
    _add_answers(app, state)
    _add_comparisons(app, state)
    add_encoders(app, state)
    add_training(app, state, _missing)
    add_batches(app, state, _missing)
    add_keys(app, state, _missing)
    return app


def _missing(kind: str, id_: str) -> Any:
    raise Fault(404, "not_found", f"no {kind} {id_!r}")


def _answer_faults(app: FastAPI, state: State) -> None:
    @app.exception_handler(Fault)
    async def answer(request: Request, fault: Fault) -> JSONResponse:
        headers = {"X-Request-Id": "req-1", **fault.headers}
        return JSONResponse({"error": fault.error}, fault.status, headers)

    @app.middleware("http")
    async def note(request: Request, call_next: Any) -> Response:
        state.calls.append(f"{request.method} {request.scope['raw_path'].decode()}")
        if state.next_fault:
            fault, state.next_fault = state.next_fault, None
            return await answer(request, fault)
        if state.lasting_fault:
            return await answer(request, state.lasting_fault)
        if state.needs_key and request.headers.get("authorization") != f"Bearer {API_KEY}":
            return await answer(request, Fault(401, "invalid_api_key", "no such key"))
        return await call_next(request)


def _add_adapters(app: FastAPI, state: State) -> None:
    @app.post("/v1/adapters")
    async def upload(request: Request) -> JSONResponse:
        async with request.form() as form:
            file = form["file"]
            data = await file.read()
            digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
            if file.headers["content-digest"] != f"sha-256=:{digest}:":
                raise Fault(400, "invalid_request", "digest", param="file")
            state.form = {
                "config": json.loads(await form["config"].read()),
                "alias": form.get("alias"),
                "metadata": json.loads(form.get("metadata", "{}")),
                "shared": form.get("shared"),
            }
            record = state.add(form["name"], data, metadata=state.form["metadata"])
            if state.form["alias"]:
                state.aliases[form["name"]][state.form["alias"]] = record["version"]
            return JSONResponse(state.record(form["name"]), 201)

    @app.get("/v1/adapters")
    async def page(
        limit: int = 20, after: str = "", method: str | None = None, prefix: str = ""
    ) -> dict[str, Any]:
        names = sorted(name for name in state.adapters if name > after and name.startswith(prefix))
        records = [state.record(name) for name in names]
        found = [record for record in records if method in (None, record["method"])]
        data = found[: min(limit, 3)]  # this server's pages are short
        last_id = data[-1]["name"] if data else None
        return {"object": "list", "data": data, "has_more": len(found) > 3, "last_id": last_id}

    @app.get("/v1/adapters/{name:adapter}")
    async def show(name: str) -> dict[str, Any]:
        return state.record(name)

    @app.get("/v1/adapters/{name:adapter}/versions")
    async def versions(name: str, limit: int = 1000, after: int = 0) -> dict[str, Any]:
        state.record(name)
        found = [record for record in state.adapters[name] if record["version"] > after]
        data = found[: min(limit, 3)]  # this server's pages are short
        last_id = str(data[-1]["version"]) if data else None
        more = len(found) > len(data)
        return {"object": "list", "data": data, "has_more": more, "last_id": last_id}

    @app.get("/v1/adapters/{name:adapter}/versions/{version}/content")
    async def content(name: str, version: int) -> Response:
        state.record(name, version)
        return Response(state.files[f"{name}@{version}"])

    @app.delete("/v1/adapters/{name:adapter}")
    async def delete(name: str) -> dict[str, Any]:
        state.record(name)
        del state.adapters[name]
        return {"deleted": True}

    @app.delete("/v1/adapters/{name:adapter}/versions/{version}")
    async def delete_version(name: str, version: int) -> Response:
        record = state.record(name, version)
        kept = [each for each in state.adapters[name] if each["version"] != record["version"]]
        state.adapters[name] = kept
        return Response(status_code=204)


def _add_aliases(app: FastAPI, state: State) -> None:
    @app.put("/v1/adapters/{name:adapter}/aliases/{alias}")
    async def move(name: str, alias: str, request: Request) -> JSONResponse:
        version = (await request.json())["version"]
        state.record(name, version)
        condition = request.headers.get("if-match")
        if condition and condition != f'"{state.aliases[name].get(alias)}"':
            raise Fault(412, "precondition_failed", "it was moved")
        state.aliases[name][alias] = version
        body = {"adapter": name, "alias": alias, "version": version}
        return JSONResponse(body, headers={"ETag": f'"{version}"'})

    @app.patch("/v1/adapters/{name:adapter}")
    async def share(name: str, request: Request) -> dict[str, Any]:
        state.bodies.append(await request.json())
        record = state.record(name)
        state.adapters[name][record["version"] - 1] |= state.bodies[-1]
        return state.record(name)

    @app.post("/v1/adapters/{name:adapter}/rollback")
    async def rollback(name: str) -> dict[str, Any]:
        state.aliases[name]["latest"] -= 1
        return state.record(name)

    @app.post("/v1/adapters/{name:adapter}/warm")
    @app.put("/v1/adapters/{name:adapter}/pin")
    @app.delete("/v1/adapters/{name:adapter}/pin")
    async def accept(name: str) -> dict[str, Any]:
        return state.record(name)


def _add_models(app: FastAPI, state: State) -> None:
    @app.get("/v1/models")
    async def models(limit: int = 1000, after: str = "") -> dict[str, Any]:
        base = {"id": "tiny", "object": "model", "created": 1, "owned_by": "overtone"}
        names = sorted(name for name in state.adapters if name > after or after == "tiny")
        found = [] if after else [{**base, "root": "tiny"}]
        found += [{**base, "id": name, "parent": "tiny"} for name in names]
        size = min(limit, 3)  # this server's pages are short
        return {"object": "list", "data": found[:size], "has_more": len(found) > size}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        if name not in {"tiny", *state.adapters, "demo"}:
            raise Fault(404, "model_not_found", f"no adapter {name!r}")
        return {"id": name, "object": "model", "created": 1, "owned_by": "overtone"}

    @app.get("/health/ready")
    async def ready() -> dict[str, Any]:
        return {"status": "ready"}


def _add_answers(app: FastAPI, state: State) -> None:
    @app.post("/v1/completions", response_model=None)
    async def complete(request: Request) -> JSONResponse | StreamingResponse:
        return answered(await request.json(), is_chat=False)

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(request: Request) -> JSONResponse | StreamingResponse:
        return answered(await request.json(), is_chat=True)

    def answered(body: dict[str, Any], is_chat: bool) -> JSONResponse | StreamingResponse:
        state.bodies.append(body)
        if body["model"] == "no-template":
            raise Fault(400, "invalid_request", "the base has no chat template")
        if body["model"].startswith("missing"):
            raise Fault(404, "model_not_found", f"no adapter {body['model']!r}")
        if body.get("stream"):
            return StreamingResponse(events(body["model"], is_chat), media_type="text/event-stream")
        return JSONResponse(_whole(body["model"], is_chat))


def _add_comparisons(app: FastAPI, state: State) -> None:
    @app.post("/v1/compare", response_model=None)
    async def compare(request: Request) -> JSONResponse | StreamingResponse:
        body = await request.json()
        state.bodies.append(body)
        is_chat = "messages" in body
        numbered = list(enumerate(body["models"]))
        if body.get("stream"):
            return StreamingResponse(compared(numbered, is_chat), media_type="text/event-stream")
        data = [
            {"index": i, "model": model, "answer": _told(model, is_chat)} for i, model in numbered
        ]
        return JSONResponse({"id": "cmpr-1", "created": 1, "data": data})


def _told(model: str, is_chat: bool) -> dict[str, Any]:
    if model == "fails":
        return {"error": {"message": "too large", "code": "too_large", "param": None}}
    kind = "chat.completion" if is_chat else "text_completion"
    return {"object": kind, **_whole(model, is_chat)}


#: A call of a function, and its pieces in a stream.
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
PIECES = [
    {"index": 0, **CALL, "function": {"name": "weather", "arguments": ""}},
    {"index": 0, "function": {"arguments": "{"}},
    {"index": 0, "function": {"arguments": "}"}},
]


def _whole(model: str, is_chat: bool) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "Hello, world"}
    if model == "calls":
        message |= {"content": None, "tool_calls": [CALL, {**CALL, "id": "c2"}]}
    choice = {"message": message} if is_chat else {"text": "Hello, world", "token_ids": [1, 2]}
    return _answer(model, [{"index": 0, "finish_reason": "stop", **choice}])


async def compared(numbered: list[tuple[int, str]], is_chat: bool) -> AsyncIterator[str]:
    """Every model's first piece, then every model's second one; `fails` has an error alone."""
    kind = "chat.completion.chunk" if is_chat else "text_completion"
    for word in ("Hello", ", world"):
        yield ": ping\n\n"
        for index, model in numbered:
            delta = {"delta": {"content": word}} if is_chat else {"text": word}
            chunk = {"object": kind, **_answer(model, [{"index": 0, **delta}])}
            if model == "fails":
                chunk = {"error": {"message": "too large", "code": "too_large"}}
            if model != "fails" or word == "Hello":
                yield _event({"index": index, "model": model, "chunk": chunk})
    yield "data: [DONE]\n\n"


async def events(model: str, is_chat: bool) -> AsyncIterator[str]:
    yield ": ping\n\n"
    for count, word in enumerate(["Hello", ", \x1b[31mworld"]):
        delta = {"delta": {"content": word}} if is_chat else {"text": word}
        yield _event(_answer(model, [{"index": 0, "finish_reason": None, **delta}]))
        if count == 0:
            async for extra in _mischief(model):
                yield extra
    for piece in PIECES if model == "calls" else ():
        yield _event(_answer(model, [{"index": 0, "delta": {"tool_calls": [piece]}}]))
    yield _event(_answer(model, []))
    if model != "ends-early":
        yield "data: [DONE]\n\n"


async def _mischief(model: str) -> AsyncIterator[str]:
    if model == "cut":
        raise RuntimeError("the connection breaks here")
    if model == "hangs":
        try:
            await asyncio.Event().wait()
        finally:
            caller_left.set()
    if model == "garbled":
        yield "data: {not json\n\n"
    if model == "fails-midway":
        error = {"message": "too many at once", "type": "error", "param": None}
        yield _event({"error": {**error, "code": "overloaded"}})


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"


def _answer(model: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": "cmpl-1",
        "created": 1_700_000_000,
        "model": model,
        "choices": choices,
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        "overtone": {"adapter": model, "version": 1, "digest": "sha256:0", "mode": "factored"},
    }
