"""The client and the OpenAPI document agree: routes, parameters, bodies, all fields it reads."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

import overtone_client as oc
from api_contract import api_document

from .documented_answers import Answers, Json, resolved

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
TENSOR = np.ones(2, dtype=np.float32)
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

Call = Callable[[Any, Path], Any]

#: Method of the client -> a call of it with everything that it can send.
CALLS: dict[str, Call] = {
    "upload": lambda c, p: c.upload(p, "poet", alias="prod", metadata={"a": 1}, shared=True),
    "list_adapters": lambda c, p: [*c.list_adapters(limit=1, after="a", method="b", prefix="c")],
    "show": lambda c, p: c.show("poet"),
    "versions": lambda c, p: c.versions("poet"),
    "layers": lambda c, p: c.layers("poet", 1),
    "content": lambda c, p: c.content("poet", 1),
    "delete": lambda c, p: (c.delete("poet"), c.delete("poet", 1)),
    "alias": lambda c, p: c.alias("poet", "prod", 1, if_match=2),
    "rollback": lambda c, p: c.rollback("poet"),
    "share": lambda c, p: c.share("poet", shared=False, tenants=["bob"]),
    "warm": lambda c, p: c.warm("poet"),
    "pin": lambda c, p: c.pin("poet"),
    "unpin": lambda c, p: c.unpin("poet"),
    "upload_peft": lambda c, p: c.upload_peft({"a": TENSOR}, "poet", config={}, alias="prod"),
    "models": lambda c, p: c.models(limit=1, after="a"),
    "model": lambda c, p: c.model("poet"),
    "version": lambda c, p: c.version(),
    "classify": lambda c, p: c.classify("poet", ["a"], truncate=True),
    "embed": lambda c, p: c.embed("poet", [[1, 2]], prompt_name="query", truncate=True),
    "tokenize": lambda c, p: (
        c.tokenize("Once", model="poet", add_special_tokens=False),
        c.tokenize(messages=MESSAGES),
    ),
    "detokenize": lambda c, p: c.detokenize([1, 2], model="poet"),
    "health": lambda c, p: c.health(),
    "wait_until_ready": lambda c, p: c.wait_until_ready(),
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


class Awaited:
    """A client for asyncio whose calls are made from a thread that does not await."""

    def __init__(self, owner: Any, portal: BlockingPortal) -> None:
        self._owner, self._portal = owner, portal

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._owner, name)
        return self._called(found) if callable(found) else Awaited(found, self._portal)

    def _called(self, method: Callable[..., Any]) -> Callable[..., Any]:
        async def collected(*values: Any, **options: Any) -> Any:
            answer = method(*values, **options)
            return await answer if inspect.isawaitable(answer) else [one async for one in answer]

        return lambda *values, **options: self._portal.call(partial(collected, *values, **options))


@pytest.fixture(params=[oc.Client, oc.AsyncClient], ids=["plain", "awaited"])
def client(request: pytest.FixtureRequest, answers: Answers) -> Iterator[Any]:
    """Each of the two clients, used alike."""
    made = request.param(transport=httpx2.MockTransport(answers))
    if isinstance(made, oc.Client):
        with made:
            yield made
        return
    with start_blocking_portal() as portal:
        awaited = Awaited(made, portal)
        yield awaited
        awaited.close()


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
    name: str, answers: Answers, adapter: Path, client: Any
) -> None:
    CALLS[name](client, adapter)
    assert answers.asked
    assert answers.unknown == []


def lists() -> set[str]:
    """Return the ids of the operations that answer a page of a list."""
    found = set()
    for operations in api_document()["paths"].values():
        for operation in operations.values():
            success = operation["responses"].get("200", {}).get("content", {})
            schema = resolved(success.get("application/json", {}).get("schema", {}))
            if "has_more" in schema.get("properties", {}):
                found.add(operation["operationId"])
    return found


def test_every_list_is_walked_to_its_last_page(answers: Answers, client: Any) -> None:
    answers.pages_left = dict.fromkeys(lists(), 2)
    walks = {
        "list_adapters": lambda: [*client.list_adapters()],
        "versions": lambda: client.versions("poet"),
        "models": lambda: client.models(),
        "files": lambda: [*client.training.files()],
        "jobs": lambda: [*client.training.jobs()],
        "events": lambda: [*client.training.events("ftjob-1")],
        "checkpoints": lambda: [*client.training.checkpoints("ftjob-1")],
        "curve": lambda: [*client.training.curve("ftjob-1")],
        "batches": lambda: [*client.batches.list()],
        "keys": lambda: [*client.keys.list()],
    }
    assert {name: len(walk()) for name, walk in walks.items()} == dict.fromkeys(walks, 3)
    assert set(answers.pages_left.values()) == {0}


def test_a_field_that_the_document_does_not_have_is_noticed(answers: Answers) -> None:
    schema = api_document()["components"]["schemas"]["Adapter"]
    residency = schema["properties"].pop("residency")
    try:
        with oc.Client(transport=httpx2.MockTransport(answers)) as client:
            client.show("poet")
    finally:
        schema["properties"]["residency"] = residency
    assert answers.unknown == ["Adapter.residency"]
