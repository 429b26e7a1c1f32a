"""Every operation of the document x every key that may not use it: refused, and nothing done.

The cases are made from the document, so a new route is among them. Their paths name things that are
there, so that a request which should have been refused would be seen in the registry or the store.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

import spectra
from api_contract import api_document
from batches_made import lines, request
from live import BASE, Live
from raw_http import head, wire
from registry import NewKey, Scope
from registry.access.record import SCOPES

Json = dict[str, Any]

ROOT = "root-of-the-tests"
OPERATIONS = [
    (method.upper(), path, operation)
    for path, operations in api_document()["paths"].items()
    for method, operation in operations.items()
]
GUARDED = [each for each in OPERATIONS if each[2]["security"]]
named = pytest.mark.parametrize(
    ("method", "path", "operation"), GUARDED, ids=[op["operationId"] for *_, op in GUARDED]
)
LINES = b'{"prompt": "a", "completion": "b"}\n' * 10


@dataclass
class Scene:
    """A server with one of everything, and the keys that are tried."""

    live: Live
    known: dict[str, str]
    keys: dict[str, str]

    def send(self, method: str, path: str, operation: Json, key: str | None) -> httpx2.Response:
        """Send a request that would do something, if it were let in."""
        body = {"json": example_of(operation)} if "requestBody" in operation else {}
        if "multipart/form-data" in operation.get("requestBody", {}).get("content", {}):
            body = {"data": {"purpose": "fine-tune", "name": "more"}, "files": {"file": LINES}}
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return self.live.http.request(method, self.path(path), headers=headers, **body)

    def path(self, path: str) -> str:
        return path.format_map(self.known)

    def key_of(self, *scopes: Scope, life_s: float | None = None) -> str:
        api_keys = self.live.service.registry.api_keys
        new = NewKey("alice", scopes, expires_in_s=life_s)
        return api_keys.create(new, now=time.time())[1].reveal()

    def state(self) -> dict[str, str]:
        """Return a digest of everything that the registry, the store and the memory hold."""
        client, service = self.live.service.registry.client, self.live.service
        found = {key.decode(): _digest(client.dump(key) or b"") for key in client.keys("*")}
        store = Path(self.live.settings.data) / "blobs"
        for path in sorted(store.rglob("*")):
            found[str(path)] = str(path.stat().st_size)
        found["pins"] = repr(service.pins.digest_of("known"))
        return found


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def example_of(operation: Json) -> Json:
    """Return the example of an operation's JSON body."""
    content = operation["requestBody"]["content"].get("application/json", {"schema": {}})
    schema = content["schema"]
    schema = schema.get("anyOf", [schema])[0]
    if "$ref" not in schema:
        return {}
    body: Json = api_document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return dict(body["examples"][0])


@pytest.fixture(scope="module")
def scene(serve_all: Callable[..., Live]) -> Scene:
    live = serve_all(api_keys=f"alice={ROOT}", run_batches=False, calibration_s=0)
    live.http.headers["Authorization"] = f"Bearer {ROOT}"
    for seed in (0, 1):
        assert live.upload("known", spectra.files(seed), alias="prod").status_code == 201
    files = [
        live.http.post("/v1/files", data={"purpose": purpose}, files={"file": ("a.jsonl", content)})
        for purpose, content in (("fine-tune", LINES), ("batch", lines(request(1))))
    ]
    file, requests = (answer.json()["id"] for answer in files)
    body = {"model": BASE, "training_file": file}
    job = live.http.post("/v1/fine_tuning/jobs", json=body).json()["id"]
    body = {"input_file_id": requests, "endpoint": "/v1/completions", "completion_window": "24h"}
    batch = live.http.post("/v1/batches", json=body).json()["id"]
    asked = {"tenant": "alice", "scopes": ["infer"]}
    key = live.http.post("/v1/keys", json=asked).json()["id"]
    del live.http.headers["Authorization"]
    known = {"name": "known", "alias": "prod", "version": "1", "model": "known"}
    known |= {"file_id": file, "job_id": job, "batch_id": batch, "key_id": key, "tenant": "alice"}
    made = Scene(live, known, {})
    made.keys["wrong"] = made.key_of("admin")[:-4] + "AAAA"
    made.keys["unknown"] = f"ovt_{'0' * 16}_{'a' * 43}"
    made.keys["expired"] = made.key_of(*SCOPES, life_s=0.001)
    made.keys["revoked"] = made.key_of(*SCOPES)
    revoked = made.keys["revoked"].split("_")[1]
    live.service.registry.api_keys.revoke(revoked, now=time.time())
    live.service.registry.key_mirror.note(revoked)
    for scope in SCOPES:
        made.keys[scope] = made.key_of(scope)
    return made


def scopes_of(operation: Json) -> set[str]:
    return {scope for way in operation["security"] for scope in way["apiKey"]}


def code_of(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@named
def test_no_other_key_is_let_in_and_nothing_is_done(
    scene: Scene, method: str, path: str, operation: Json
) -> None:
    before = scene.state()
    messages = set()
    for key in (None, "nonsense", *(scene.keys[w] for w in ("wrong", "unknown", "revoked"))):
        answer = scene.send(method, path, operation, key)
        assert code_of(answer) == (401, "invalid_api_key"), key
        assert answer.headers["www-authenticate"] == "Bearer"
        messages.add(answer.json()["error"]["message"])
    assert len(messages) == 1  # a revoked key is as one that never was
    answer = scene.send(method, path, operation, scene.keys["expired"])
    assert code_of(answer) == (401, "invalid_api_key")
    assert "has expired: it was valid until 20" in answer.json()["error"]["message"]
    for scope in set(SCOPES) - scopes_of(operation) - {"admin"}:
        answer = scene.send(method, path, operation, scene.keys[scope])
        assert code_of(answer) == (403, "insufficient_scope"), scope
        told = answer.json()["error"]["message"]
        assert all(f"`{needed}`" in told for needed in scopes_of(operation))
        assert told.endswith(f"the key that was sent has `{scope}`")
    assert scene.state() == before


@named
def test_each_scope_that_is_named_lets_a_key_in(
    scene: Scene, method: str, path: str, operation: Json
) -> None:
    """Nothing is asked for that is there, so nothing is done either."""
    before = scene.state()
    missing = {name: "9" * 16 if name == "key_id" else "missing" for name in scene.known}
    place = path.format_map(missing | {"version": "7"})
    for scope in sorted(scopes_of(operation) | {"admin"}):
        headers = {"Authorization": f"Bearer {scene.keys[scope]}"}
        answer = scene.live.http.request(method, place, headers=headers)
        assert answer.status_code not in (401, 403, 405, 500), (scope, answer.text)
    assert scene.state() == before


def test_the_state_that_is_compared_shows_what_a_request_does(scene: Scene) -> None:
    before = scene.state()
    headers = {"Authorization": f"Bearer {scene.keys['train']}"}
    form, file = {"purpose": "fine-tune"}, {"file": ("a.jsonl", LINES)}
    made = scene.live.http.post("/v1/files", data=form, files=file, headers=headers)
    changed = {name for name, value in scene.state().items() if before.get(name) != value}
    assert any(name.endswith(made.json()["id"]) for name in changed)
    assert any(name.endswith(":files") for name in changed)


def test_open_operations_need_no_key_and_believe_none(scene: Scene) -> None:
    for method, path, operation in OPERATIONS:
        if not operation["security"]:
            for key in (None, "nonsense", scene.keys["revoked"]):
                assert scene.send(method, path, operation, key).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1/nothing", "/v1/keys/", "/V1/KEYS", "//health", "/health/", "/docs/../v1/keys"]
)
def test_only_the_very_paths_of_open_operations_need_no_key(scene: Scene, path: str) -> None:
    with wire(scene.live.url) as line:
        line.send(head("GET", path, line.host))
        assert line.answer()[0] == 401
