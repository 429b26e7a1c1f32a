"""The client and the OpenAPI document agree: routes, parameters, bodies, all fields it reads."""

import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx2
import pytest

import overtone_client as oc
from api_contract import api_document, check_schema, operation_of

Json = dict[str, Any]

FILE = "adapter_model.safetensors"
HYPER = {"n_epochs": 2, "batch_size": 4}
PARAMS = {
    "max_tokens": 4,
    "n": 2,
    "best_of": 2,
    "temperature": 0.5,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.05,
    "typical_p": 0.95,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "repetition_penalty": 1.1,
    "min_tokens": 1,
    "seed": 1,
    "stop": ["x"],
    "stop_token_ids": [3],
    "logit_bias": {},
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "any", "schema": {"type": "object"}, "strict": True},
    },
}
MESSAGES = [{"role": "user", "content": "Hello"}]
TOOLS: Json = {
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
}
GATE = {"metric": "eval_loss", "better_than": "base"}
JOB: Json = {
    "name": "poet",
    "method": "loca",
    "config": {"n_frequency": 4},
    "task": "causal_lm",
    "validation_file": "file-2",
    "hyperparameters": HYPER,
    "seed": 3,
    "alias": "prod",
    "publish_if": GATE,
    "move_latest": "always",
    "metadata": {"team": "blue"},
}

Call = Callable[[oc.Client, Path], Any]

#: Method of the client -> a call of it with everything that it can send.
CALLS: dict[str, Call] = {
    "upload": lambda c, p: c.upload(p, "poet", alias="prod", metadata={"a": 1}, shared=True),
    "list_adapters": lambda c, p: [*c.list_adapters(limit=1, after="a", method="b", prefix="c")],
    "show": lambda c, p: c.show("poet"),
    "versions": lambda c, p: c.versions("poet"),
    "content": lambda c, p: c.content("poet", 1),
    "delete": lambda c, p: (c.delete("poet"), c.delete("poet", 1)),
    "alias": lambda c, p: c.alias("poet", "prod", 1, if_match=2),
    "rollback": lambda c, p: c.rollback("poet"),
    "share": lambda c, p: c.share("poet", shared=False, tenants=["bob"]),
    "warm": lambda c, p: c.warm("poet"),
    "pin": lambda c, p: c.pin("poet"),
    "unpin": lambda c, p: c.unpin("poet"),
    "models": lambda c, p: c.models(limit=1, after="a"),
    "health": lambda c, p: c.health(),
    "activity": lambda c, p: c.activity(limit=3),
    "complete": lambda c, p: c.complete("poet", "Once", **PARAMS, logprobs=2),
    "chat": lambda c, p: c.chat("poet", MESSAGES, **PARAMS, **TOOLS, logprobs=True, top_logprobs=2),
    "stream_complete": lambda c, p: [*c.stream_complete("poet", [1, 2], **PARAMS)],
    "stream_chat": lambda c, p: [*c.stream_chat("poet", MESSAGES, **PARAMS)],
    "compare": lambda c, p: (
        c.compare(["poet", "tiny"], "Once", **PARAMS, logprobs=2),
        c.compare(["poet"], messages=MESSAGES, **PARAMS, top_logprobs=2, logprobs=True),
    ),
    "stream_compare": lambda c, p: [*c.stream_compare(["poet"], messages=MESSAGES, **PARAMS)],
    "rerank": lambda c, p: c.rerank("poet", "a", ["b", "c"], top_n=1, truncate=True),
    "score": lambda c, p: c.score("poet", ["a", "b"], ["c", "d"], truncate=True),
    "training.upload": lambda c, p: c.training.upload(p / FILE),
    "training.files": lambda c, p: [*c.training.files(limit=1)],
    "training.file": lambda c, p: c.training.file("file-1"),
    "training.file_content": lambda c, p: c.training.file_content("file-1"),
    "training.delete_file": lambda c, p: c.training.delete_file("file-1"),
    "training.create": lambda c, p: c.training.create("tiny", "file-1", **JOB),
    "training.jobs": lambda c, p: [*c.training.jobs(limit=1)],
    "training.job": lambda c, p: c.training.job("ftjob-1"),
    "training.cancel": lambda c, p: c.training.cancel("ftjob-1"),
    "training.pause": lambda c, p: c.training.pause("ftjob-1"),
    "training.resume": lambda c, p: c.training.resume("ftjob-1"),
    "training.events": lambda c, p: [*c.training.events("ftjob-1", limit=1)],
    "training.stream": lambda c, p: [*c.training.stream("ftjob-1", after="e", after_step=2)],
    "training.evaluate": lambda c, p: [*c.training.evaluate("poet", "file-1", max_length=8)],
    "training.checkpoints": lambda c, p: [*c.training.checkpoints("ftjob-1", limit=1)],
    "training.curve": lambda c, p: [*c.training.curve("ftjob-1")],
    "training.plot": lambda c, p: c.training.plot("ftjob-1"),
    "training.workers": lambda c, p: c.training.workers(),
    "batches.upload": lambda c, p: c.batches.upload(p / FILE),
    "batches.create": lambda c, p: c.batches.create(
        "file-1", "/v1/completions", metadata={"a": "b"}
    ),
    "batches.list": lambda c, p: [*c.batches.list(limit=1)],
    "batches.get": lambda c, p: c.batches.get("batch_1"),
    "keys.create": lambda c, p: c.keys.create("a", ["infer"], label="b", expires_in_s=1),
    "keys.list": lambda c, p: [*c.keys.list(limit=1, tenant="a")],
    "keys.get": lambda c, p: c.keys.get("0" * 16),
    "keys.rotate": lambda c, p: c.keys.rotate("0" * 16, grace_s=1),
    "keys.revoke": lambda c, p: c.keys.revoke("0" * 16),
    "tenants.limits": lambda c, p: c.tenants.limits("a"),
    "tenants.set_limits": lambda c, p: c.tenants.set_limits("a", {"running_requests": 1}),
    "tenants.usage": lambda c, p: (c.tenants.usage("a"), c.tenants.usage()),
    "batches.cancel": lambda c, p: c.batches.cancel("batch_1"),
}


class Watched(dict[str, Any]):
    """An object that notes which fields are read that its schema does not have."""

    def __init__(self, values: Json, known: set[str], where: str, unknown: list[str]) -> None:
        super().__init__(values)
        self.known, self._where, self._unknown = known, where, unknown

    def __getitem__(self, name: str) -> Any:
        self._note(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._note(name)
        return super().get(name, default)

    def _note(self, name: str) -> None:
        if name not in self.known:
            self._unknown.append(f"{self._where}.{name}")


class Answers:
    """A transport that answers as the document says, and checks what it is asked."""

    def __init__(self) -> None:
        self.unknown: list[str] = []
        self.num_asked = 0
        self._samples: dict[str, Any] = {}

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.num_asked += 1
        operation = operation_of(request.method, request.url.path)
        assert operation, f"the client asks for {request.method} {request.url.path}"
        check_request(operation, request)
        status = min(code for code in operation["responses"] if code < "4")
        content = operation["responses"][status]["content"]
        own = {"content-type": "text/event-stream"}
        if request_streams(request) and own["content-type"] in content:
            events = self._events(content)
            text = "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"])
            return httpx2.Response(int(status), text=text, headers=own)
        if "application/json" not in content or "application/octet-stream" in content:
            return httpx2.Response(int(status), content=b"bytes")
        text = self._told(content["application/json"]["schema"])
        headers = {"content-type": "application/json", "etag": '"1"'}
        return httpx2.Response(int(status), text=text, headers=headers)

    def sample_of(self, text: str) -> Any:
        return self._samples[text]

    def _events(self, content: Json) -> list[str]:
        """Return one event of each kind but an error; the client asks each which kind it is."""
        _, told = content["text/event-stream"]["itemSchema"]["properties"]["data"]["anyOf"]
        kinds = [one for one in told["contentSchema"]["anyOf"] if "ErrorBody" not in one["$ref"]]
        events = [self._told(kind) for kind in kinds]
        for event in events:
            self._samples[event].known |= {"error"}.union(
                *(resolved(k)["properties"] for k in kinds)
            )
        return events

    def _told(self, schema: Json) -> str:
        value = self._sample(schema, schema.get("$ref", "").rpartition("/")[2])
        self._samples[json.dumps(value)] = value
        return json.dumps(value)

    def _sample(self, schema: Json, where: str) -> Any:
        schema = resolved(schema)
        if "anyOf" in schema:
            return self._sample(schema["anyOf"][0], where)
        if "const" in schema or "enum" in schema:
            return schema.get("const", schema.get("enum", [None])[0])
        kind = schema.get("type")
        if kind == "object":
            return self._object(schema, where)
        if kind == "array":
            return [self._sample(schema["items"], f"{where}[0]")] if "items" in schema else []
        plain = {"string": "x", "integer": 1, "number": 0.5, "boolean": True, "null": None}
        return plain[kind] if kind else None

    def _object(self, schema: Json, where: str) -> Any:
        fields = schema.get("properties", {})
        values = {name: self._sample(field, f"{where}.{name}") for name, field in fields.items()}
        values |= {"has_more": False} if "has_more" in fields else {}
        if "properties" not in schema:  # a map, whose keys are the caller's
            inner = schema.get("additionalProperties")
            return {"key": self._sample(inner, f"{where}.*")} if isinstance(inner, dict) else {}
        return Watched(values, set(fields), where, self.unknown)


def resolved(schema: Json) -> Json:
    while "$ref" in schema:
        schema = api_document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def request_streams(request: httpx2.Request) -> bool:
    is_json = request.headers.get("content-type") == "application/json"
    asked = json.loads(request.content) if is_json else request.url.params
    return asked.get("stream") in (True, "true")


def check_request(operation: Json, request: httpx2.Request) -> None:
    parameters = [one for one in operation["parameters"] if "$ref" not in one]
    query = {one["name"] for one in parameters if one["in"] == "query"}
    assert set(parse_qs(request.url.query.decode())) <= query
    if "if-match" in request.headers:
        assert "if-match" in {one["name"] for one in parameters if one["in"] == "header"}
    media_type = request.headers.get("content-type", "").partition(";")[0]
    if not media_type:
        assert "requestBody" not in operation
        return
    media = operation["requestBody"]["content"][media_type]
    if media_type == "application/json":
        check_schema(media["schema"], json.loads(request.content), request.url.path)
    else:
        check_form(media, request.read())


def check_form(media: Json, body: bytes) -> None:
    sent = set(re.findall(rb'form-data; name="(\w+)"', body))
    fields = resolved(media["schema"])
    assert {name.decode() for name in sent} <= set(fields["properties"])
    assert set(fields["required"]) <= {name.decode() for name in sent}
    if b"Content-Digest" in body:
        assert "Content-Digest" in media["encoding"]["file"]["headers"]


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    (tmp_path / FILE).write_bytes(b"bytes")
    (tmp_path / "adapter_config.json").write_text("{}")
    return tmp_path


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    made = Answers()
    monkeypatch.setattr(httpx2.Response, "json", lambda self: made.sample_of(self.text))
    monkeypatch.setattr(httpx2.ServerSentEvent, "json", lambda self: made.sample_of(self.data))
    return made


def public(owner: type) -> Iterator[str]:
    return (n for n, _ in inspect.getmembers(owner, inspect.isfunction) if n[0] != "_")


def test_every_method_of_the_client_is_tried_here() -> None:
    training = {f"training.{name}" for name in public(oc.Training)}
    batches = {f"batches.{name}" for name in public(oc.Batches)}
    keys = {f"keys.{name}" for name in public(oc.Keys)}
    tenants = {f"tenants.{name}" for name in public(oc.Tenants)}
    files = {"batches.results"}  # their lines are no answer of the document's
    own = set(public(oc.Client)) - {"close"}
    assert set(CALLS) == own | training | keys | tenants | batches - files


@pytest.mark.parametrize("name", list(CALLS))
def test_the_client_sends_and_reads_what_the_document_has(
    name: str, answers: Answers, adapter: Path
) -> None:
    with oc.Client(transport=httpx2.MockTransport(answers)) as client:
        CALLS[name](client, adapter)
    assert answers.num_asked
    assert answers.unknown == []


def test_a_field_that_the_document_does_not_have_is_noticed(answers: Answers) -> None:
    schema = api_document()["components"]["schemas"]["Adapter"]
    residency = schema["properties"].pop("residency")
    try:
        with oc.Client(transport=httpx2.MockTransport(answers)) as client:
            client.show("poet")
    finally:
        schema["properties"]["residency"] = residency
    assert answers.unknown == ["Adapter.residency"]
