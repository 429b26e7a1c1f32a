"""What cannot work is said before torch is imported, with what to do instead."""

import gc
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from adapters_core.starting import (
    CannotStart,
    check_base,
    check_device,
    check_folder,
    torch_build,
    uncollected_imports,
)

ROOT = Path(__file__).parents[2]


def refusal(source: str) -> str:
    with pytest.raises(CannotStart) as caught:
        check_base(source)
    return str(caught.value)


@pytest.fixture
def _no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, and a hub at a port on which nothing listens."""
    from huggingface_hub import constants

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_a_folder_with_a_config_is_a_base(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    check_base(str(tmp_path))


def test_a_path_that_leads_nowhere_is_no_hub_id(tmp_path: Path) -> None:
    said = refusal(str(tmp_path / "models" / "llama"))
    assert f"there is no such folder: {tmp_path} holds no models" in said
    assert "hub's model" not in said
    assert "Repo id" not in said


def test_a_name_that_is_nearly_right_is_shown(tmp_path: Path) -> None:
    (tmp_path / "smollm2").mkdir()
    assert f"did you mean {tmp_path / 'smollm2'}?" in refusal(str(tmp_path / "smolm2"))


def test_a_folder_without_a_config_and_a_file_are_named_as_such(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_text("")
    assert "has no config.json" in refusal(str(tmp_path))
    assert "it is a file, and not in GGUF's format" in refusal(str(file))


@pytest.mark.usefixtures("_no_hub")
@pytest.mark.parametrize("name", ["gpt2", "some-one/some-model"])
def test_a_hub_id_that_cannot_be_downloaded_names_both_positions(name: str) -> None:
    said = refusal(name)
    assert f"there is no folder {name!r} in {Path.cwd()}" in said
    assert "the hub, http://127.0.0.1:" in said
    assert "Connection refused" in said


@pytest.mark.usefixtures("_no_hub")
def test_a_hub_that_may_not_be_asked_is_said_to_be_forbidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE forbids asking the hub" in refusal("some-one/some-model")


@pytest.mark.usefixtures("_no_hub")
def test_what_was_downloaded_before_needs_no_hub(tmp_path: Path) -> None:
    (tmp_path / "cache" / "models--some-one--some-model" / "refs").mkdir(parents=True)
    check_base("some-one/some-model")


@pytest.mark.usefixtures("_no_hub")
def test_a_hub_that_takes_its_time_is_left_to_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts the connection and says nothing."""
    from huggingface_hub import constants

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        check_base("some-one/some-model")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "CPU", ""])
def test_a_device_that_is_none_is_named(device: str) -> None:
    with pytest.raises(CannotStart, match="is none. Give auto, cpu, cuda"):
        check_device(device)


def test_a_gpu_is_refused_where_torch_has_none() -> None:
    build = torch_build()
    assert build is not None
    if build["cuda"] or build["hip"]:
        pytest.skip("this torch is built for GPUs")
    with pytest.raises(CannotStart, match="computes on CPUs only. Install a build"):
        check_device("cuda:1")


def test_the_build_is_the_one_that_torch_itself_tells() -> None:
    import torch

    build = torch_build()
    assert build is not None
    assert (build["__version__"], build["cuda"]) == (torch.__version__, torch.version.cuda)


def test_a_folder_that_cannot_be_made_names_its_setting(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(CannotStart, match="--store or OVERTONE_STORE") as caught:
        check_folder("store", file / "blobs")
    assert str(file / "blobs") in caught.value.what


def test_none_of_it_imports_what_takes_seconds() -> None:
    program = (
        "import sys; from adapters_core.starting import *; check_device('cpu'); torch_build(); "
        "check_base(sys.argv[1]); print(*{'torch', 'transformers'} & set(sys.modules))"
    )
    base = str(ROOT / "trainer" / "demo" / "base")
    done = subprocess.run(
        [sys.executable, "-c", program, base],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == ""


def test_imports_are_not_collected_and_what_comes_after_them_is() -> None:
    before = gc.get_freeze_count()
    try:
        with uncollected_imports():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()
