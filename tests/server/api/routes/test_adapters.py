"""Adapters over REST: what is taken, what is refused and how that is said, and what is left."""

import base64
import hashlib
import json
import math
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from safetensors.torch import load, save

import spectra
from live import CONFIG, FILE, Files, Live, parts
from spectra import TARGETS, N, key
from waiting import until


@pytest.fixture(scope="module")
def server(serve_all: Callable[..., Live]) -> Live:
    """A server that starts without any adapter."""
    return serve_all(max_upload_bytes=64 << 10, max_body_bytes=32 << 10)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, empty."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def error_of(answer: httpx2.Response) -> dict[str, Any]:
    told: dict[str, Any] = answer.json()["error"]
    return told


def names(server: Live, **query: Any) -> list[str]:
    page = server.http.get("/v1/adapters", params={"limit": 1000, **query}).json()
    return [record["name"] for record in page["data"]]


def blobs(server: Live) -> set[Path]:
    folder = server.settings.data / "blobs"
    return {path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def put(server: Live, name: str, seed: int, **fields: str) -> dict[str, Any]:
    answer = server.upload(name, spectra.files(seed), **fields)
    assert answer.status_code in (200, 201), answer.text
    record: dict[str, Any] = answer.json()
    return record


# Uploading what is good


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


# Names of two parts


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


# Aliases, rollback, delete


def test_an_alias_moves_only_from_where_its_caller_saw_it(server: Live) -> None:
    for seed in (1, 2):
        put(server, "moved", seed)
    path = "/v1/adapters/moved/aliases/prod"
    made = server.http.put(path, json={"version": 1})
    assert made.status_code == 200
    etag = made.headers["ETag"]
    assert server.tokens("moved@prod") == server.tokens("moved@1")
    moved = server.http.put(path, json={"version": 2}, headers={"If-Match": etag})
    assert (moved.status_code, moved.json()["version"]) == (200, 2)
    assert moved.headers["ETag"] != etag
    assert server.tokens("moved@prod") == server.tokens("moved@2")
    late = server.http.put(path, json={"version": 1}, headers={"If-Match": etag})
    assert (late.status_code, error_of(late)["code"]) == (412, "precondition_failed")
    assert server.http.get("/v1/adapters/moved").json()["aliases"]["prod"] == 2
    versions = server.http.get("/v1/adapters/moved/versions").json()["data"]
    assert all(version["aliases"]["prod"] == 2 for version in versions)


def test_an_alias_points_only_to_what_is_there(server: Live) -> None:
    put(server, "pointed", 1)
    path = "/v1/adapters/pointed/aliases/"
    assert server.http.put(path + "prod", json={"version": 9}).status_code == 404
    assert server.http.put(path + "latest", json={"version": 1}).status_code == 400
    assert server.http.put(path + "Prod!", json={"version": 1}).status_code == 400
    assert server.http.put(path + "new", json={"version": 1}, headers={"If-Match": "*"}).is_error
    for body in ({"version": "one"}, {"version": 0}, {}, {"version": 1, "more": 2}, [1]):
        assert server.http.put(path + "prod", json=body).status_code == 400
    assert server.http.get("/v1/adapters/pointed").json()["aliases"] == {"latest": 1}


def test_a_rollback_makes_the_version_before_the_latest(server: Live) -> None:
    for seed in (1, 2):
        put(server, "rolled", seed)
    before = server.tokens("rolled")
    answer = server.http.post("/v1/adapters/rolled/rollback")
    assert (answer.status_code, answer.json()["version"]) == (200, 1)
    assert server.tokens("rolled") == server.tokens("rolled@1") != before
    again = server.http.post("/v1/adapters/rolled/rollback")
    assert (again.status_code, error_of(again)["code"]) == (409, "name_conflict")


def test_a_deleted_version_is_gone_and_latest_falls_back(server: Live) -> None:
    for seed in (21, 22):
        put(server, "shrinks", seed)
    server.tokens("shrinks@2")  # known to the server's mirror of names
    held = blobs(server)
    answer = server.http.delete("/v1/adapters/shrinks/versions/2")
    assert answer.json() == {
        "object": "adapter.deleted",
        "name": "shrinks",
        "version": 2,
        "deleted": True,
    }
    assert server.complete("shrinks@2").status_code == 404
    assert server.tokens("shrinks") == server.tokens("shrinks@1")
    assert len(blobs(server)) == len(held) - 2


def test_a_version_with_an_alias_is_in_use(server: Live) -> None:
    put(server, "in-use", 1, alias="prod")
    answer = server.http.delete("/v1/adapters/in-use/versions/1")
    assert (answer.status_code, error_of(answer)["code"]) == (409, "adapter_in_use")
    assert "prod" in error_of(answer)["message"]
    assert server.complete("in-use@prod").status_code == 200


def test_a_running_request_finishes_on_a_deleted_adapter(server: Live) -> None:
    put(server, "leaves", 31)
    alone = server.tokens("leaves", max_tokens=40, ignore_eos=True)
    told: list[list[int]] = []
    ask = threading.Thread(
        target=lambda: told.append(server.tokens("leaves", max_tokens=40, ignore_eos=True))
    )
    with server.paused():
        ask.start()
        until(lambda: server.num_open == 2)
        assert server.http.delete("/v1/adapters/leaves").status_code == 200
        refused = server.complete("leaves")
        assert (refused.status_code, error_of(refused)["code"]) == (404, "model_not_found")
    ask.join(60)
    assert told == [alone]
    assert server.complete("leaves").status_code == 404
    assert "leaves" not in names(server)


def test_a_name_that_comes_back_answers_with_its_new_bytes(server: Live) -> None:
    put(server, "returns", 41)
    before = server.tokens("returns")
    server.http.delete("/v1/adapters/returns")
    record = put(server, "returns", 42)
    assert record["version"] == 2  # a number is never given twice
    assert server.tokens("returns") != before


# Refusals: each says which tensor or field, leaves nothing behind, and the server serves on

SMALL = torch.ones(N)


def _lying(claim: int) -> Files:
    content = spectra.files()[FILE]
    return spectra.files() | {FILE: claim.to_bytes(8, "little") + content[8:]}


def _header(changed: dict[str, Any]) -> Files:
    entry = {"dtype": "F32", "shape": [N], "data_offsets": [0, 4 * N], **changed}
    header = json.dumps({key(): entry}).encode()
    return spectra.files() | {FILE: len(header).to_bytes(8, "little") + header + bytes(4 * N)}


def _of_another_base() -> Files:
    own = {"base": {"name": "other", "fingerprint": "sha256:" + "0" * 64}}
    files = spectra.files()
    content = save(load(files[FILE]), metadata={"overtone": json.dumps(own)})
    return {**files, FILE: content}


def _named_for_another_model() -> Files:
    moved = {
        name.replace("model.layers", "transformer.h"): t for name, t in spectra.tensors().items()
    }
    return spectra.files() | {FILE: save(moved)}


BROKEN: dict[str, tuple[Files, int, str, str]] = {
    "base mismatch": (_of_another_base(), 409, "base_mismatch", "file"),
    "wrong shape": (
        spectra.files(changed={key(TARGETS[1]): torch.ones(N + 1)}),
        *(422, "invalid_adapter", key(TARGETS[1])),
    ),
    "wrong rank": (
        spectra.files(changed={key(TARGETS[1]): torch.ones(N, 1)}),
        *(422, "invalid_adapter", key(TARGETS[1])),
    ),
    "missing": (
        spectra.files(changed={key(TARGETS[2]): None}),
        *(422, "invalid_adapter", TARGETS[2]),
    ),
    "unused": (
        spectra.files(changed={"base_model.model.model.norm.lora_A.weight": SMALL}),
        *(422, "unused_tensors", "base_model.model.model.norm.lora_A.weight"),
    ),
    "another prefix": (
        _named_for_another_model(),
        *(422, "unused_tensors", key().replace("model.layers", "transformer.h")),
    ),
    "unknown tensor": (
        spectra.files(changed={f"base_model.model.{TARGETS[0]}.extra": SMALL}),
        *(422, "unused_tensors", f"base_model.model.{TARGETS[0]}.extra"),
    ),
    "nan": (
        spectra.files(changed={key(TARGETS[3]): torch.full((N,), torch.nan)}),
        *(422, "non_finite", key(TARGETS[3])),
    ),
    "infinity": (
        spectra.files(changed={key(TARGETS[3]): torch.full((N,), -torch.inf)}),
        *(422, "non_finite", key(TARGETS[3])),
    ),
    "no effect": (
        spectra.files(changed={key(target): torch.zeros(N) for target in TARGETS}),
        *(422, "no_effect", "file"),
    ),
    "integers": (
        spectra.files(changed={key(): torch.ones(N, dtype=torch.int32)}),
        *(422, "invalid_adapter", key()),
    ),
    "header longer than the file": (_lying(1 << 40), 422, "invalid_adapter", "file"),
    "header of no length": (_lying(0), 422, "invalid_adapter", "file"),
    "no file to speak of": (spectra.files() | {FILE: b"abc"}, 422, "invalid_adapter", "file"),
    "tensor larger than the file": (
        _header({"shape": [1 << 40], "data_offsets": [0, 1 << 42]}),
        *(422, "invalid_adapter", "file"),
    ),
    "tensor of other bytes": (_header({"shape": [N + 1]}), 422, "invalid_adapter", key()),
    "unknown dtype": (_header({"dtype": "F4"}), 422, "invalid_adapter", key()),
    "negative size": (_header({"shape": [-N]}), 422, "invalid_adapter", key()),
    "config is no JSON": (spectra.files() | {CONFIG: b"{"}, 422, "invalid_adapter", "config"),
    "config is a list": (spectra.files() | {CONFIG: b"[]"}, 422, "invalid_adapter", "config"),
    "config of twice the key": (
        spectra.files() | {CONFIG: b'{"peft_type": "LORA", "peft_type": "FOURIERFT"}'},
        *(422, "invalid_adapter", "config"),
    ),
    "config that nests deeply": (
        spectra.files() | {CONFIG: b'{"a":' * 450 + b"1" + b"}" * 450},
        *(422, "invalid_adapter", "config"),
    ),
    "no peft_type": (spectra.files(peft_type=None), 422, "invalid_adapter", "peft_type"),
    "unknown method": (spectra.files(peft_type="MAGIC"), 422, "unknown_method", "peft_type"),
    "code in the config": (
        spectra.files(auto_map={"AutoModel": "evil.Model"}),
        *(422, "invalid_adapter", "auto_map"),
    ),
    "modules to save that no adapter may replace": (
        spectra.files(modules_to_save=["norm"]),
        *(422, "invalid_adapter", "modules_to_save"),
    ),
    "NaN in a field that changes nothing": (
        spectra.files(revision=math.nan),
        *(422, "invalid_adapter", "revision"),
    ),
    "half of a character in a field that changes nothing": (
        spectra.files(base_model_name_or_path="\ud83d"),
        *(422, "invalid_adapter", "base_model_name_or_path"),
    ),
    "modules to save that are not in the file": (
        spectra.files(modules_to_save=["lm_head"]),
        *(422, "invalid_adapter", "base_model.model.lm_head.weight"),
    ),
}


@contextmanager
def nothing_left(server: Live, scratch: Path) -> Iterator[None]:
    """Check that the block changes neither names nor files, and that the server serves on."""
    put(server, "witness", 1)
    before = names(server), blobs(server), server.tokens("witness")
    yield
    assert (names(server), blobs(server), server.tokens("witness")) == before
    until(lambda: not list(scratch.iterdir()), 5)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_adapter_is_refused_and_its_fault_is_named(
    server: Live, scratch: Path, kind: str
) -> None:
    files, status, code, param = BROKEN[kind]
    with nothing_left(server, scratch):
        answer = server.upload("broken", files)
        told = error_of(answer)
        assert (answer.status_code, told["code"], told["param"]) == (status, code, param)
        assert str(scratch) not in answer.text
        assert server.complete("broken").status_code == 404


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": "tiny"}, "name"),
        ({"name": "../../etc/passwd"}, None),
        ({"name": ""}, None),
        ({"name": "a@1"}, None),
        ({"name": "a" * 97}, None),
        ({"name": ".hidden"}, None),
        ({"name": "a/b/c"}, None),
        ({"name": "a/../b"}, None),
        ({"name": "a/versions"}, None),
        ({"name": "a%2Fb"}, None),
        ({"name": "fine", "alias": "latest"}, None),
        ({"name": "fine", "alias": "no good"}, None),
        ({"name": "fine", "metadata": "{"}, "metadata"),
        ({"name": "fine", "metadata": "[1]"}, "metadata"),
        ({"name": "fine", "metadata": '{"a": NaN}'}, "metadata"),
        ({"name": "fine", "metadata": "[" * 100_000}, "metadata"),
        ({"name": "fine", "metadata": '{"a":' * 450 + "1" + "}" * 450}, "metadata"),
        ({"name": "fine", "metadata": '{"a":' * 40 + "1" + "}" * 40}, None),
        ({"name": "fine", "metadata": '{"a": 1, "a": 2}'}, "metadata"),
        ({"name": "fine", "metadata": json.dumps({"a": "b" * 70_000})}, None),
        ({"name": "fine", "replace": "yes"}, "replace"),
    ],
)
def test_a_bad_field_is_refused(
    server: Live, scratch: Path, fields: dict[str, str], param: str | None
) -> None:
    with nothing_left(server, scratch):
        answer = server.http.post("/v1/adapters", data=fields, files=parts(spectra.files(9)))
        assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_request")
        assert error_of(answer)["param"] == param


@pytest.mark.parametrize("missing", ["name", "file", "config"])
def test_a_missing_field_is_named(server: Live, scratch: Path, missing: str) -> None:
    files = {name: part for name, part in parts(spectra.files(9)).items() if name != missing}
    data = {} if missing == "name" else {"name": "fine"}
    with nothing_left(server, scratch):
        answer = server.http.post("/v1/adapters", data=data, files=files)
        assert (answer.status_code, error_of(answer)["param"]) == (400, missing)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"name": "x"}', "application/json"),
        (b"name=x", "application/x-www-form-urlencoded"),
        (b"nonsense", "multipart/form-data; boundary=xyz"),
        (b"nonsense", "multipart/form-data"),
        (b"", "text/plain"),
    ],
)
def test_what_is_no_multipart_form_is_refused(
    server: Live, scratch: Path, content: bytes, kind: str
) -> None:
    with nothing_left(server, scratch):
        answer = server.http.post("/v1/adapters", content=content, headers={"Content-Type": kind})
        assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_request")


def test_a_file_over_the_cap_is_too_large(server: Live, scratch: Path) -> None:
    files = spectra.files(changed={"base_model.model.x": torch.zeros(20_000)})
    with nothing_left(server, scratch):
        answer = server.upload("large", files)
        told = error_of(answer)
        assert (answer.status_code, told["code"], told["param"]) == (413, "too_large", "file")


def test_a_config_over_the_cap_is_too_large(server: Live, scratch: Path) -> None:
    files = spectra.files() | {CONFIG: b" " * ((1 << 20) + 1)}
    with nothing_left(server, scratch):
        answer = server.upload("large", files)
        assert (answer.status_code, error_of(answer)["code"]) == (413, "too_large")


def test_a_body_that_declares_too_much_is_refused_unread(server: Live, scratch: Path) -> None:
    content = b"x" * (3 << 20)
    with nothing_left(server, scratch):
        answer = server.http.post(
            "/v1/adapters",
            content=content,
            headers={"Content-Type": "multipart/form-data; boundary=xyz"},
        )
        assert (answer.status_code, error_of(answer)["code"]) == (413, "too_large")


def test_a_body_that_grows_too_much_is_refused_on_the_way(server: Live, scratch: Path) -> None:
    def endless() -> Iterator[bytes]:
        yield b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for _ in range(40):
            yield b"x" * (64 << 10)

    with nothing_left(server, scratch):
        answer = server.http.post(
            "/v1/adapters",
            content=endless(),
            headers={"Content-Type": "multipart/form-data; boundary=xyz"},
        )
        assert (answer.status_code, error_of(answer)["code"]) == (413, "too_large")
