"""Refusals: each says which tensor or field, leaves nothing behind, and the server serves on."""

import json
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

import spectra
from adapter_calls import blobs, names, put
from live import CONFIG, FILE, Files, Live, error_of, parts
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
