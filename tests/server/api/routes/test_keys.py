"""API keys over REST: the first one closes the server, and a secret is shown once."""

import json
import logging
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from live import Live
from registry.access.mirror import KeyMirror
from waiting import until

EVIL = {"Origin": "http://evil.example"}
ROOT = "root-of-the-tests"


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def make(live: Live, by: str | None, *scopes: str, **more: Any) -> httpx2.Response:
    headers = {} if by is None else bearer(by)
    body = {"tenant": "alice", "scopes": list(scopes), **more}
    return live.http.post("/v1/keys", json=body, headers=headers)


@pytest.fixture(scope="module")
def guarded(serve_all: Callable[..., Live]) -> Live:
    return serve_all(api_keys=f"root={ROOT}", calibration_s=0)


def test_the_first_key_must_be_an_admins_and_closes_the_server(serve: Callable[..., Live]) -> None:
    live = serve(calibration_s=0)
    refused = make(live, None, "infer", "train")
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "scopes"
    assert "the first key must have the scope admin" in refused.json()["error"]["message"]
    assert live.http.get("/v1/files").status_code == 200
    assert live.http.get("/v1/files", headers=EVIL).status_code == 403

    made = make(live, None, "admin")

    assert made.status_code == 201
    secret = made.json()["secret"]
    assert live.http.get("/v1/files").status_code == 401
    assert make(live, None, "admin").status_code == 401
    assert live.http.get("/v1/files", headers=bearer(secret)).status_code == 200
    # As on every server with keys, the key alone counts.
    assert live.http.get("/v1/files", headers=bearer(secret) | EVIL).status_code == 200
    assert live.http.get("/health/ready").status_code == 200
    assert make(live, secret, "infer").status_code == 201


def test_the_first_key_closes_every_server_of_the_registry_for_good(
    serve: Callable[..., Live], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = tmp_path_factory.mktemp("shared")
    one, other = serve(data=data, calibration_s=0), serve(data=data, calibration_s=0)
    assert other.http.get("/v1/files").status_code == 200
    made = make(one, None, "admin").json()
    until(lambda: other.http.get("/v1/files").status_code == 401, 1.0)
    assert make(other, None, "admin").status_code == 401
    key = bearer(made["secret"])
    assert other.http.get("/v1/files", headers=key).status_code == 200
    assert one.http.delete(f"/v1/keys/{made['id']}", headers=key).json()["revoked_at"]
    until(lambda: other.http.get("/v1/files", headers=key).status_code == 401, 1.0)
    later = serve(data=data, calibration_s=0)  # without a valid key it is not open again
    assert later.http.get("/v1/files").status_code == 401
    rescued = serve(data=data, calibration_s=0, api_keys=f"root={ROOT}")
    assert make(rescued, ROOT, "admin").status_code == 201


def test_a_server_that_has_not_heard_of_the_first_key_makes_no_other_one(
    serve: Callable[..., Live], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = serve(calibration_s=0)
    assert make(live, None, "admin").status_code == 201
    # As if the news were on their way; the mirror's own value changes when they arrive.
    monkeypatch.setattr(KeyMirror, "has_any", property(lambda _: False))
    refused = make(live, None, "admin")
    assert refused.status_code == 400
    assert "has API keys already" in refused.json()["error"]["message"]


def test_a_key_is_shown_as_it_is_and_its_secret_once(guarded: Live) -> None:
    before = int(time.time())
    answer = make(guarded, ROOT, "train", "infer", label="für CI", expires_in_s=60)
    assert answer.headers["cache-control"] == "no-store"
    made = answer.json()
    secret = made.pop("secret")
    assert made["scopes"] == ["infer", "train"]
    assert (made["label"], made["tenant"], made["object"]) == ("für CI", "alice", "api_key")
    assert made["expires_at"] - made["created_at"] == 60
    assert before <= made["created_at"] <= time.time()
    assert made["revoked_at"] is made["rotated_at"] is made["old_secret_until"] is None
    assert secret.endswith(made["ends_in"])
    assert secret.startswith(f"ovt_{made['id']}_")
    key = f"/v1/keys/{made['id']}"
    assert guarded.http.get(key, headers=bearer(ROOT)).json() == made
    for path in (key, "/v1/keys", "/openapi.json", "/metrics", "/version"):
        assert secret[25:] not in guarded.http.get(path, headers=bearer(ROOT)).text


def test_a_rotated_key_goes_on_under_both_secrets_for_the_grace(guarded: Live) -> None:
    made = make(guarded, ROOT, "infer").json()
    key = f"/v1/keys/{made['id']}"
    rotated = guarded.http.post(f"{key}/rotate?grace_s=600", headers=bearer(ROOT))
    assert rotated.headers["cache-control"] == "no-store"
    body = rotated.json()
    assert body["id"] == made["id"]
    assert 0 <= body["old_secret_until"] - body["rotated_at"] - 600 <= 1
    for secret in (made["secret"], body["secret"]):
        assert guarded.http.get("/v1/models", headers=bearer(secret)).status_code == 200

    last = guarded.http.post(f"{key}/rotate", headers=bearer(ROOT)).json()

    for secret, status in ((made, 401), (body, 401), (last, 200)):
        headers = bearer(secret["secret"])
        assert guarded.http.get("/v1/models", headers=headers).status_code == status
    for grace in ("-1", "nan", "inf", "1e9", "x"):
        wrong = guarded.http.post(f"{key}/rotate?grace_s={grace}", headers=bearer(ROOT))
        assert wrong.status_code == 400
    assert guarded.http.get("/v1/models", headers=bearer(last["secret"])).status_code == 200


def test_a_key_may_revoke_itself(guarded: Live) -> None:
    made = make(guarded, ROOT, "admin").json()
    own = bearer(made["secret"])
    revoked = guarded.http.delete(f"/v1/keys/{made['id']}", headers=own)
    assert revoked.status_code == 200
    assert guarded.http.get("/v1/keys", headers=own).status_code == 401
    again = guarded.http.delete(f"/v1/keys/{made['id']}", headers=bearer(ROOT))
    assert again.json() == revoked.json()
    late = guarded.http.post(f"/v1/keys/{made['id']}/rotate", headers=bearer(ROOT))
    assert (late.status_code, late.json()["error"]["code"]) == (400, "invalid_request")


def test_keys_are_listed_by_page_and_by_tenant(guarded: Live) -> None:
    ids = [make(guarded, ROOT, "infer", tenant=name).json()["id"] for name in ("t1", "t2", "t1")]

    def page(**query: Any) -> Any:
        return guarded.http.get("/v1/keys", params=query, headers=bearer(ROOT)).json()

    assert [one["id"] for one in page(limit=3)["data"]] == ids[::-1]
    first = page(limit=1, tenant="t1")
    assert [one["id"] for one in first["data"]] == [ids[2]]
    assert first["has_more"]
    rest = page(limit=5, tenant="t1", after=first["last_id"])
    assert [one["id"] for one in rest["data"]] == [ids[0]]
    assert not rest["has_more"]
    assert page(tenant="nobody")["data"] == []
    assert not any("secret" in one for one in page()["data"])


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tenant": "a/b"}, "tenant"),
        ({"tenant": ""}, "tenant"),
        ({"tenant": "alice\n"}, "tenant"),
        ({"tenant": None}, "tenant"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["root"]}, "scopes[0]"),
        ({"scopes": "admin"}, "scopes"),
        ({"scopes": ["infer"] * 9}, "scopes"),
        ({"label": "x" * 101}, "label"),
        ({"label": "a\x1b[2J"}, None),
        ({"expires_in_s": 0}, "expires_in_s"),
        ({"expires_in_s": -1}, "expires_in_s"),
        ({"expires_in_s": 1e300}, "expires_in_s"),
        ({"expires_in_s": "30d"}, "expires_in_s"),
        ({"expires_in_s": True}, "expires_in_s"),
        ({"id": "0" * 16}, "id"),
        ({"secret": "mine"}, "secret"),
    ],
)
def test_what_is_no_key_is_refused_by_its_name(
    guarded: Live, change: dict[str, Any], param: str | None
) -> None:
    answer = guarded.http.post(
        "/v1/keys", json={"tenant": "a", "scopes": ["infer"], **change}, headers=bearer(ROOT)
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_a_keys_files_and_jobs_are_its_tenants(guarded: Live) -> None:
    keys = {name: make(guarded, ROOT, "train", tenant=name).json()["secret"] for name in "ab"}
    second = make(guarded, ROOT, "upload", tenant="a").json()["secret"]
    form, file = {"purpose": "fine-tune"}, {"file": ("a.jsonl", b'{"text": "a"}\n')}
    id_ = guarded.http.post("/v1/files", data=form, files=file, headers=bearer(keys["a"])).json()[
        "id"
    ]
    seen = {
        key: guarded.http.get(f"/v1/files/{id_}", headers=bearer(key)).status_code
        for key in (keys["a"], second, keys["b"])
    }
    assert list(seen.values()) == [200, 200, 404]


def test_no_secret_is_in_any_log(guarded: Live, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    made = make(guarded, ROOT, "infer").json()
    key = f"/v1/keys/{made['id']}"
    rotated = guarded.http.post(f"{key}/rotate", headers=bearer(ROOT)).json()
    for secret in (made["secret"], rotated["secret"], rotated["secret"][:-2] + "xx", "typed-wrong"):
        guarded.http.get("/v1/models", headers=bearer(secret))
        guarded.http.get("/v1/keys", headers=bearer(secret))
    guarded.http.delete(key, headers=bearer(ROOT))
    told = [each for each in caplog.records if each.name.startswith(("overtone", "registry"))]
    assert told
    text = "\n".join(f"{each.getMessage()}{each.exc_text or ''}" for each in told)
    for secret in (made["secret"][25:], rotated["secret"][25:], "typed-wrong", ROOT):
        assert secret not in text


# What is written of it.


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    caplog.set_level(logging.INFO, "overtone.audit")

    def told() -> list[dict[str, Any]]:
        return [json.loads(e.getMessage()) for e in caplog.records if e.name == "overtone.audit"]

    return told


def test_a_line_says_which_key_did_what_to_what(
    guarded: Live, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    made = make(guarded, ROOT, "upload").json()
    headers = bearer(made["secret"]) | {"X-Request-Id": "my-request"}
    form, file = {"purpose": "fine-tune"}, {"file": ("a.jsonl", b'{"text": "a secret"}\n')}
    id_ = guarded.http.post("/v1/files", data=form, files=file, headers=headers).json()["id"]
    guarded.http.get(f"/v1/files/{id_}", headers=headers)
    guarded.http.delete(f"/v1/files/{id_}", headers=headers)
    guarded.http.delete(f"/v1/files/{id_}", headers=headers)
    guarded.http.post("/v1/adapters/poet/rollback", headers=headers)
    guarded.http.put("/v1/adapters/poet/pin", headers=headers)
    guarded.http.post("/v1/completions", json={}, headers=bearer(ROOT))
    guarded.http.delete("/v1/models", headers=bearer(ROOT))

    create, *rest = lines()

    assert create["action"] == "createKey"
    assert create["key"] == "environment:root"
    assert create["object"] == {"key_id": made["id"], "tenant": "alice", "scopes": ["upload"]}
    assert [(o["action"], o["object"], o["status"], o["outcome"]) for o in rest] == [
        ("createFile", {"file_id": id_}, 200, "done"),
        ("deleteFile", {"file_id": id_}, 200, "done"),
        ("deleteFile", {"file_id": id_}, 404, "refused"),
        ("rollbackAdapter", {"name": "poet"}, 404, "refused"),
        ("pinAdapter", {"name": "poet"}, 403, "refused"),
    ]
    for one in rest:
        assert (one["key"], one["tenant"]) == (made["id"], "alice")
        assert one["request_id"] == "my-request"
        assert one["time"].endswith("Z")
        assert len(json.dumps(one)) < 400
    assert "a secret" not in json.dumps(lines())


def test_names_in_a_line_are_cut(guarded: Live, lines: Callable[[], list[dict[str, Any]]]) -> None:
    guarded.http.delete(f"/v1/adapters/{'x' * 5000}", headers=bearer(ROOT))
    guarded.http.delete("/v1/adapters/a%0Ab%22", headers=bearer(ROOT))
    long, odd = lines()
    assert long["object"] == {"name": "x" * 200}
    assert odd["object"] == {"name": 'a\nb"'}
