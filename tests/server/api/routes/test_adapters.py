"""Adapters over REST: uploads, what is listed, names of two parts."""

import base64
import hashlib
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

import spectra
from adapter_calls import names, put
from live import CONFIG, FILE, Live, error_of, parts
from spectra import TARGETS, N


@pytest.fixture(scope="module")
def server(serve_all: Callable[..., Live]) -> Live:
    """A server that starts without any adapter."""
    return serve_all(max_upload_bytes=64 << 10, max_body_bytes=32 << 10)


def test_an_upload_answers_with_its_record(server: Live) -> None:
    answer = server.upload("record", spectra.files(1), alias="prod", metadata='{"team": "blue"}')
    assert answer.status_code == 201
    record = answer.json()
    assert record["object"] == "adapter"
    assert (record["name"], record["version"]) == ("record", 1)
    assert record["digest"].startswith("sha256:")
    assert record["method"] == "fourierft"
    assert record["method_config"] == {"n": N, "scale": 150.0, "seed": 777}
    assert record["base"]["name"] == "tiny"
    assert record["base"]["verified"] is False  # PEFT's file does not say whose it is
    assert record["target_modules"] == list(TARGETS)
    assert record["num_coefficients"] == N * len(TARGETS)
    assert record["size_bytes"] == len(spectra.files(1)[FILE])
    assert record["aliases"] == {"latest": 1, "prod": 1}
    assert record["metadata"] == {"team": "blue"}
    assert server.http.get("/v1/adapters/record").json() == record


def test_an_uploaded_adapter_answers_at_once_and_not_as_the_base(server: Live) -> None:
    put(server, "at-once", 1)
    assert server.tokens("at-once") != server.tokens("tiny")


def test_the_same_bytes_are_the_same_version(server: Live) -> None:
    first = server.upload("twice", spectra.files(1))
    again = server.upload("twice", spectra.files(1))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["version"] == again.json()["version"] == 1
    assert first.json()["digest"] == again.json()["digest"]


def test_other_bytes_are_the_next_version_and_every_name_finds_its_own(server: Live) -> None:
    records = [put(server, "grows", seed) for seed in (1, 2)]
    assert [record["version"] for record in records] == [1, 2]
    old, new = (server.tokens(f"grows@{version}") for version in (1, 2))
    assert old != new
    assert server.tokens("grows") == new
    assert server.tokens(f"grows@{records[0]['digest']}") == old
    listed = server.http.get("/v1/adapters/grows/versions").json()["data"]
    assert [(record["version"], record["digest"]) for record in listed] == [
        (record["version"], record["digest"]) for record in records
    ]


def test_the_bytes_come_back_as_they_were(server: Live) -> None:
    record = put(server, "bytes", 3)
    path = "/v1/adapters/bytes/versions/1/content"
    content = server.http.get(path)
    assert content.content == spectra.files(3)[FILE]
    assert content.headers["X-Overtone-Adapter"] == f"bytes@1 {record['digest']}"
    assert server.http.get(path, params={"part": "config"}).content == spectra.files(3)[CONFIG]
    assert server.http.get(path, params={"part": "secret"}).status_code == 400
    assert server.http.get("/v1/adapters/bytes/versions/2/content").status_code == 404


def test_a_config_may_be_a_plain_field(server: Live) -> None:
    files = spectra.files(1)
    answer = server.http.post(
        "/v1/adapters",
        data={"name": "plain", "config": files[CONFIG].decode()},
        files={"file": (FILE, files[FILE])},
    )
    assert answer.status_code == 201


def _with_digest(server: Live, header: str) -> httpx2.Response:
    files = spectra.files(4)
    part = (FILE, files[FILE], "application/octet-stream", {"Content-Digest": header})
    given = parts(files) | {"file": part}
    return server.http.post("/v1/adapters", data={"name": "digested"}, files=given)


def _sha256(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def test_a_right_content_digest_is_taken(server: Live) -> None:
    right = _sha256(spectra.files(4)[FILE])
    assert _with_digest(server, right).status_code == 201
    assert _with_digest(server, f"sha-512=:AAAA:, {right}").status_code == 200


@pytest.mark.parametrize("header", [_sha256(b"other"), "sha-256=:%%%:", "sha-256=nothing"])
def test_a_wrong_or_malformed_content_digest_is_refused(server: Live, header: str) -> None:
    answer = _with_digest(server, header)
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "Content-Digest"


def test_an_uploaded_name_is_listed_once_in_order_and_page_by_page(server: Live) -> None:
    wanted = [f"page-{i}" for i in range(5)]
    for i, name in reversed(list(enumerate(wanted))):
        put(server, name, i)
    assert names(server, prefix="page-") == wanted
    first = server.http.get("/v1/adapters", params={"prefix": "page-", "limit": 2}).json()
    assert [record["name"] for record in first["data"]] == wanted[:2]
    assert (first["first_id"], first["last_id"]) == (wanted[0], wanted[1])
    assert first["has_more"] is True
    query = {"prefix": "page-", "limit": 3, "after": first["last_id"]}
    second = server.http.get("/v1/adapters", params=query).json()
    assert [record["name"] for record in second["data"]] == wanted[2:]
    assert second["has_more"] is False
    assert names(server, prefix="page-", method="fourierft") == wanted
    assert names(server, prefix="page-", method="lora") == []
    assert names(server, prefix="nothing-") == []


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 1001}, {"limit": "x"}, {"after": "/"}])
def test_a_bad_query_is_refused(server: Live, query: dict[str, Any]) -> None:
    answer = server.http.get("/v1/adapters", params=query)
    assert answer.status_code == 400
    assert error_of(answer)["code"] == "invalid_request"


def test_what_is_not_there_is_not_found(server: Live) -> None:
    put(server, "there", 1)
    for path in ("/nobody", "/nobody/versions", "/there/versions/7/content"):
        answer = server.http.get("/v1/adapters" + path)
        assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found")
    for path in ("/nobody", "/nobody/versions/1", "/there/versions/7"):
        assert server.http.delete("/v1/adapters" + path).status_code == 404
    assert server.http.post("/v1/adapters/nobody/rollback").status_code == 404


@pytest.mark.parametrize("slash", ["/", "%2F", "%2f"])
def test_a_name_of_two_parts_is_one_name_on_every_path(server: Live, slash: str) -> None:
    """Also where a part is a word of the API's paths, or another adapter's name."""
    name = {"/": "versions/plain", "%2F": "versions/upper", "%2f": "versions/lower"}[slash]
    shown = name.replace("/", slash)
    put(server, "versions", 50)
    for seed in (51, 52):
        record = put(server, name, seed)
    assert (record["name"], record["version"]) == (name, 2)
    call, path = server.http.request, f"/v1/adapters/{shown}"
    assert call("GET", path).json()["name"] == name
    listed = call("GET", f"{path}/versions").json()["data"]
    assert [(each["name"], each["version"]) for each in listed] == [(name, 1), (name, 2)]
    content = call("GET", f"{path}/versions/1/content")
    assert content.content == spectra.files(51)[FILE]
    assert content.headers["X-Overtone-Adapter"].startswith(f"{name}@1 sha256:")
    moved = call("PUT", f"{path}/aliases/prod", json={"version": 1}).json()
    assert (moved["name"], moved["alias"], moved["version"]) == (name, "prod", 1)
    assert call("POST", f"{path}@prod/warm").json()["name"] == name
    assert call("PUT", f"{path}/pin").json()["pinned"] is True
    assert call("DELETE", f"{path}/pin").json()["pinned"] is False
    assert call("GET", f"/v1/models/{shown}@prod").json()["id"] == f"{name}@prod"
    assert server.tokens(f"{name}@prod") == server.tokens(f"{name}@1") != server.tokens(name)
    assert call("POST", f"{path}/rollback").json()["version"] == 1
    assert server.tokens(name) == server.tokens(f"{name}@1")
    assert call("DELETE", f"{path}/versions/2").json()["name"] == name
    assert call("DELETE", path).json() == {
        "object": "adapter.deleted",
        "name": name,
        "version": None,
        "deleted": True,
    }
    assert call("GET", path).status_code == 404
    assert server.http.get("/v1/adapters/versions").json()["version"] == 1


def test_names_of_one_organisation_are_listed_by_their_prefix(server: Live) -> None:
    for number, name in enumerate(["acme/a", "acme/b", "acme-x", "acme"]):
        put(server, name, 60 + number)
    assert names(server, prefix="acme/") == ["acme/a", "acme/b"]
    assert names(server, prefix="acme") == ["acme", "acme-x", "acme/a", "acme/b"]
    assert names(server, prefix="acme", after="acme/a") == ["acme/b"]
    ids = [model["id"] for model in server.http.get("/v1/models").json()["data"]]
    assert {"acme/a", "acme/b", "acme-x", "acme"} <= set(ids)


@pytest.mark.parametrize(
    "path",
    [
        "a/b/c",
        "a//b",
        "a/..%2Fb",
        "..%2F..%2Fetc%2Fpasswd",
        "a%2Fb%2Fversions%2F..",
        "%2Fa",
        "a%00b",
    ],
)
def test_a_path_that_holds_no_name_finds_nothing(server: Live, path: str) -> None:
    for method in ("GET", "DELETE"):
        answer = server.http.request(method, f"/v1/adapters/{path}")
        assert answer.status_code in (400, 404, 405), answer.text


def test_metrics_count_paths_of_two_parts_under_the_same_route(server: Live) -> None:
    put(server, "count/poet", 70)
    server.complete("count/poet")
    sample = 'overtone_requests_total{code="200",route="/v1/adapters/{name}/versions"}'
    server.http.get("/v1/adapters/count/poet/versions")
    before = server.metric(sample)
    server.http.get("/v1/adapters/count%2Fpoet/versions")
    assert server.metric(sample) == before + 1
    assert server.metric('overtone_adapter_requests_total{adapter="count/poet"}') == 1
