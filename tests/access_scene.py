"""A server with one of everything that the document has operations for, and requests to them."""

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

import spectra
from api_contract import api_document
from batches_made import lines, request
from live import BASE, Live, parts
from registry import NewKey, Scope

Json = dict[str, Any]

OPERATIONS = [
    (method.upper(), path, operation)
    for path, operations in api_document()["paths"].items()
    for method, operation in operations.items()
]
GUARDED = [each for each in OPERATIONS if each[2]["security"]]
LINES = b'{"prompt": "a", "completion": "b"}\n' * 10


@dataclass
class Scene:
    """A server, what is there by the names of parameters, and the keys that are tried."""

    live: Live
    known: dict[str, str]
    keys: dict[str, str] = field(default_factory=dict)

    def send(self, method: str, path: str, operation: Json, key: str | None) -> httpx2.Response:
        """Send a request that would do something, if it were let in."""
        body = {"json": example_of(operation)} if "requestBody" in operation else {}
        if "multipart/form-data" in operation.get("requestBody", {}).get("content", {}):
            body = {"data": {"purpose": "fine-tune", "name": "more"}, "files": {"file": LINES}}
        return self.ask(method, path.format_map(self.known), key, **body)

    def ask(self, method: str, place: str, key: str | None, **more: Any) -> httpx2.Response:
        """Send a request with a key."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return self.live.http.request(method, place, headers=headers, **more)

    def key_of(self, *scopes: Scope, tenant: str = "alice", life_s: float | None = None) -> str:
        """Return the secret of a new key."""
        api_keys = self.live.service.registry.api_keys
        new = NewKey(tenant, scopes, expires_in_s=life_s)
        return api_keys.create(new, now=time.time())[1].reveal()

    def state(self) -> dict[str, str]:
        """Return a digest of everything that the registry, the store and the memory hold."""
        client, service = self.live.service.registry.client, self.live.service
        found = {key.decode(): _digest(client.dump(key) or b"") for key in client.keys("*")}
        store = Path(self.live.settings.data) / "blobs"
        for path in sorted(store.rglob("*")):
            found[str(path)] = str(path.stat().st_size)
        found["pins"] = repr([service.pins.digest_of(name) for name in ("known", "alice:known")])
        return found


def things_of(live: Live, secret: str) -> dict[str, str]:
    """Make one of everything with a key; return names and ids by the names of parameters."""
    headers = {"Authorization": f"Bearer {secret}"}

    def post(place: str, **more: Any) -> Json:
        answer = live.http.post(place, headers=headers, **more)
        assert answer.status_code in (200, 201), answer.text
        made: Json = answer.json()
        return made

    for seed in (0, 1):
        form = {"name": "known", "alias": "prod"}
        post("/v1/adapters", data=form, files=parts(spectra.files(seed)))
    files = [
        post("/v1/files", data={"purpose": purpose}, files={"file": ("a.jsonl", content)})["id"]
        for purpose, content in (("fine-tune", LINES), ("batch", lines(request(1))))
    ]
    job = post("/v1/fine_tuning/jobs", json={"model": BASE, "training_file": files[0]})["id"]
    body = {"input_file_id": files[1], "endpoint": "/v1/completions", "completion_window": "24h"}
    batch = post("/v1/batches", json=body)["id"]
    return {
        **{"name": "known", "alias": "prod", "version": "1", "model": "known"},
        "layer": spectra.TARGETS[0],
        **{"file_id": files[0], "requests_id": files[1], "job_id": job, "batch_id": batch},
    }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def example_of(operation: Json) -> Json:
    """Return the example of an operation's JSON body."""
    content = operation["requestBody"]["content"].get("application/json", {"schema": {}})
    schema = schema_in(content["schema"])
    return dict(schema["examples"][0]) if "examples" in schema else {}


def schema_in(schema: Json) -> Json:
    """Return a body's schema, or the first of several; empty where there is none by name."""
    schema = schema.get("anyOf", [schema])[0]
    if "$ref" not in schema:
        return {}
    body: Json = api_document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return body


def code_of(answer: httpx2.Response) -> tuple[int, str]:
    """Return an error's status and code."""
    return answer.status_code, answer.json()["error"]["code"]
