"""Every operation of the document x every key that may not use it: refused, and nothing done.

The cases are made from the document, so a new route is among them. Their paths name things that are
there, so that a request which should have been refused would be seen in the registry or the store.
"""

import time
from collections.abc import Callable

import pytest

from access_scene import GUARDED, LINES, OPERATIONS, Json, Scene, code_of, things_of
from live import Live
from raw_http import head, wire
from registry.access.record import SCOPES

ROOT = "root-of-the-tests"
named = pytest.mark.parametrize(
    ("method", "path", "operation"), GUARDED, ids=[op["operationId"] for *_, op in GUARDED]
)


@pytest.fixture(scope="module")
def scene(serve_all: Callable[..., Live]) -> Scene:
    live = serve_all(api_keys=f"alice={ROOT}", run_batches=False, calibration_s=0)
    made = Scene(live, things_of(live, ROOT))
    made.known |= {"key_id": made.key_of("infer").split("_")[1], "tenant": "alice"}
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
