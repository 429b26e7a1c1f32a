import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.cluster.asked import Asked, asked


def of(path: str, body: Any = b"", method: str = "POST", **headers: str) -> Asked:
    raw = [(n.replace("_", "-").encode(), v.encode()) for n, v in headers.items()]
    return asked(method, path, raw, body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    ("model", "adapter"),
    [("support", "support"), ("support@prod", "support"), ("org/support@3", "org/support")],
)
def test_versions_and_aliases_of_an_adapter_go_one_way(model: str, adapter: str) -> None:
    assert of("/v1/completions", {"model": model}).model == adapter


@pytest.mark.parametrize(
    ("path", "adapter"),
    [
        ("/v1/adapters/support", "support"),
        ("/v1/adapters/support/versions/2/content", "support"),
        ("/v1/adapters/support/warm", "support"),
        ("/v1/adapters/org/support", "org/support"),
        ("/v1/adapters/org%2Fsupport/aliases/prod", "org/support"),
        ("/v1/adapters/org/support/pin", "org/support"),
        ("/v1/adapters", None),
        ("/v1/files/file-1", None),
    ],
)
def test_a_path_names_its_adapter(path: str, adapter: str | None) -> None:
    assert of(path, method="GET").model == adapter


def test_headers_name_base_and_adapter() -> None:
    found = of("/v1/completions", {"model": "a"}, x_overtone_base="small", x_overtone_adapter="b@2")
    assert found == Asked("small", "b", is_repeatable=True)


@pytest.mark.parametrize(
    ("method", "path", "is_repeatable"),
    [
        ("POST", "/v1/chat/completions", True),
        ("POST", "/v2/rerank", True),
        ("POST", "/tokenize", True),
        ("GET", "/v1/files/file-1/content", True),
        ("HEAD", "/health/ready", True),
        ("POST", "/v1/adapters", False),
        ("POST", "/v1/fine_tuning/jobs", False),
        ("POST", "/v1/completions/x", False),
        ("DELETE", "/v1/adapters/support", False),
        ("PUT", "/v1/adapters/support/pin", False),
    ],
)
def test_what_changes_something_is_sent_once(method: str, path: str, is_repeatable: bool) -> None:
    assert of(path, method=method).is_repeatable is is_repeatable


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"model": 3}', b'{"model": ""}', b'{"model": "@3"}', b"\xff{"]
)
def test_a_body_without_a_name_names_none(body: bytes) -> None:
    assert of("/v1/completions", body).model is None


def test_a_deeply_nested_body_names_none() -> None:
    assert of("/v1/completions", b'{"model": ' + b"[" * 200_000).model is None


@given(st.binary(), st.text(st.characters(codec="ascii")))
def test_anything_may_stand_in_a_request(body: bytes, path: str) -> None:
    asked("POST", path, [(b"x", body)], b"{" + body)
