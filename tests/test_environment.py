"""`.ci/environment.py`: what a person sees of pip, and what pip's failures mean."""

import importlib.util
import socket
import sys
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = Path(__file__).parent.parent / ".ci" / "environment.py"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The module, with its log in a folder of the test's."""
    spec = importlib.util.spec_from_file_location("environment", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "LOG", tmp_path / "log")
    return module


def test_large_downloads_are_shown_with_their_size_and_all_are_added_up(
    environment: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines as pip 26 writes them."""
    monkeypatch.setattr(environment, "TICK_S", 0)
    progress = environment.Progress()
    for line in (
        "Collecting torch==2.13.0 (from -c constraints.txt (line 3))",
        "  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (31 kB)",
        "Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (526.1 MB)",
        "Progress 0 of 526100000",
        "Progress 131072000 of 526100000",
        "Downloading sympy-1.14.0-py3-none-any.whl (6.3 MB)",
        "Progress 6300000 of 6300000",
        "Downloading filelock-4.2.11-py3-none-any.whl (40 kB)",
        "Installing collected packages: mpmath, sympy, torch",
    ):
        progress.take(line)
    assert capsys.readouterr().err.splitlines() == [
        "  torch: 526 MB",
        "  torch: 0 of 526 MB",
        "  torch: 131 of 526 MB",
        "  unpacking: 3",
    ]
    assert progress.downloaded == pytest.approx(532.44e6)


def test_an_index_that_cannot_be_reached_is_said_by_name_and_not_as_a_conflict(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip itself says that there is no matching distribution, or that dependencies conflict."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
    for other in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    words = ["--retries", "0", "--dry-run", "no-such-package-here"]
    with pytest.raises(environment.Failed, match="package index cannot be reached") as caught:
        environment.pip(words, environment.Progress(), bar="off")
    assert "HTTPS_PROXY" in str(caught.value)
    assert "no-such-package-here" in environment.LOG.read_text()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "ERROR: Could not find a version that satisfies torch (from versions: none)",
            "HTTPS_PROXY",
        ),
        ("ERROR: Could not find a version that satisfies torch (from versions: 1.0)", "PYTHON="),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "PIP_CERT"),
        ("ERROR: No matching distribution found for torch", "choose another with PYTHON="),
        ("ERROR: something new", "its last words say why"),
    ],
)
def test_what_pip_says_is_explained(environment: ModuleType, said: str, words: str) -> None:
    told = environment.why(f"Collecting torch\n{said}\n", "torch")
    assert words in told
    assert said in told
    assert "pip could not install torch" in told


def test_a_torch_that_is_there_is_kept(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_INDEX_URL", "http://127.0.0.1:9/nothing")
    environment.install_torch(environment.Progress())
    assert not environment.LOG.exists()


def test_an_index_of_builds_that_cannot_be_reached_is_given_up_soon(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A uv that waits for a network which answers nothing; and one that fails at once."""
    if sys.platform != "linux":
        pytest.skip("uv is asked on Linux alone")
    uv = tmp_path / "uv"
    for body in ("exec sleep 60", "exit 2"):
        uv.write_text(f"#!/bin/sh\n{body}\n")
        uv.chmod(0o755)
        monkeypatch.setattr(environment, "INDEX_S", 0.1)
        monkeypatch.setattr(environment, "own_uv", lambda progress: str(uv))
        assert environment.with_uv("cpu", environment.Progress()) is False
