"""What two readers of a request could understand differently is refused by its name."""

import socket
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

import spectra
from live import CONFIG, FILE, JSON, Live, parts

KEYS = "first-key,second-key"


def refused(answer: httpx2.Response, param: str) -> str:
    told = answer.json()["error"]
    assert (answer.status_code, told["code"], told["param"]) == (400, "invalid_request", param)
    assert answer.headers["X-Request-Id"]
    message: str = told["message"]
    return message


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/v1/adapters?limit=1&limit=1000", "limit"),
        ("/v1/adapters?limit=1&after=a&limit=1", "limit"),
        ("/v1/adapters?prefix=a&pre%66ix=b", "prefix"),
        ("/v1/files?after&after", "after"),
        ("/v1/models?x=1&x=2", "x"),
    ],
)
def test_a_query_parameter_that_stands_twice_is_named(live: Live, path: str, param: str) -> None:
    assert "stands twice" in refused(live.http.get(path), param)


def test_a_query_whose_parameters_stand_once_or_are_lists_is_taken(live: Live) -> None:
    for query in ("limit=1&prefix=b", "limit=1&", "&&limit=1", "include[]=a&include[]=b"):
        assert live.http.get(f"/v1/adapters?{query}").status_code == 200


@pytest.mark.parametrize("name", ["Authorization", "X-Tenant", "Content-Type", "If-Match"])
def test_a_header_with_two_values_is_named(serve_all: Callable[..., Live], name: str) -> None:
    server = serve_all(api_keys=KEYS, tenant_header="X-Tenant")
    plain = [("Authorization", "Bearer first-key"), ("X-Tenant", "a"), ("If-Match", '"1"')]
    given = [*plain, ("Content-Type", "application/json")]
    twice = [*given, (name, "Bearer second-key")]
    body = b'{"version": 1}'
    path = "/v1/adapters/nobody/aliases/prod"
    assert server.http.put(path, content=body, headers=given).status_code == 404
    message = refused(server.http.put(path, content=body, headers=twice), name)
    assert "two different values" in message
    assert "key" not in message
    same = [*given, *(pair for pair in given if pair[0] == name)]
    assert server.http.put(path, content=body, headers=same).status_code == 404


def test_a_request_for_two_hosts_is_refused(live: Live) -> None:
    place = httpx2.URL(live.url)  # over a socket: httpx2 sends no two
    with socket.create_connection((place.host, place.port), 10) as connection:
        connection.sendall(
            b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n"
            b"Connection: close\r\n\r\n"
        )
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"header Host is sent with two different values" in answer


@pytest.mark.parametrize("field", ["name", "alias", "metadata", "file", "config"])
def test_a_field_of_an_upload_that_stands_twice_is_named(live: Live, field: str) -> None:
    files = spectra.files(3)
    texts = {"name": "said-once", "alias": "prod", "metadata": "{}"}
    form: list[Any] = [(name, (None, text)) for name, text in texts.items()]
    form += list(parts(files).items())
    more: dict[str, Any] = dict.fromkeys(texts, (None, "said-twice")) | {
        "file": (FILE, files[FILE]),
        "config": (CONFIG, files[CONFIG]),
    }
    answer = live.http.post("/v1/adapters", files=[*form, (field, more[field])])
    assert "stands 2 times" in refused(answer, field)
    for name in ("said-once", "said-twice"):
        assert live.complete(name).status_code == 404


@pytest.mark.parametrize("field", ["purpose", "file"])
def test_a_field_of_a_training_file_that_stands_twice_is_named(live: Live, field: str) -> None:
    content = b'{"text": "a"}\n'
    before = live.http.get("/v1/files").json()["data"]
    form: list[Any] = [("purpose", (None, "fine-tune")), ("file", ("a.jsonl", content))]
    more = {"purpose": (None, "fine-tune"), "file": ("b.jsonl", content)}[field]
    assert "stands 2 times" in refused(
        live.http.post("/v1/files", files=[*form, (field, more)]), field
    )
    assert live.http.get("/v1/files").json()["data"] == before


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ('{"model": "tiny", "model": "other", "prompt": "a"}', "model"),
        ('{"model": "tiny", "prompt": "a", "max_tokens": 1, "max_tokens": 1}', "max_tokens"),
        ('{"model": "tiny", "prompt": "a", "logit_bias": {"1": 2, "1": 3}}', "1"),
    ],
)
def test_a_key_of_a_body_that_stands_twice_is_named(live: Live, body: str, param: str) -> None:
    assert "twice" in refused(live.http.post("/v1/completions", content=body, headers=JSON), param)


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"b":'])
@pytest.mark.parametrize("depth", [70, 450, 900, 100_000])
def test_a_body_that_nests_deeply_is_refused_without_a_trace(
    live: Live, caplog: pytest.LogCaptureFixture, opening: str, depth: int
) -> None:
    closing = "".join({"[": "]", "{": "}"}[mark] for mark in reversed(opening) if mark in "[{")
    deep = opening * depth + "1" + closing * depth
    for body in (deep, f'{{"model": "tiny", "prompt": "a", "metadata": {deep}}}'):
        for path in ("/v1/completions", "/v1/embeddings", "/v1/fine_tuning/jobs"):
            answer = live.http.post(path, content=body, headers=JSON)
            assert answer.status_code == 400
            assert "nested too deeply" in answer.json()["error"]["message"]
    assert not caplog.records
