"""A GGUF file becomes a folder with the very weights that transformers reads from it, once."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import torch
from gguf import GGMLQuantizationType
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapters_core.gguf import conversion, writing
from adapters_core.gguf.conversion import base_name_of, local_base
from adapters_core.gguf.writing import exact_dtype
from adapters_core.starting import CannotStart
from disks import small_disk
from gguf_files import TEMPLATE, write_gguf

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("files") / "tiny.Q8_0.gguf")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def folder(file: Path, data: Path) -> Path:
    return Path(local_base(str(file), data, lambda line: None))


@pytest.fixture
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert in this process, which has imported what takes seconds already."""
    monkeypatch.setattr(
        conversion, "_written", lambda file, part, say: writing.main(file.resolve(), part)
    )
    monkeypatch.setattr(writing, "_tell", lambda line: None)


def test_its_weights_and_tokens_are_those_that_transformers_reads(file: Path, folder: Path) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    ours = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    expected = dict(theirs.named_parameters())
    found = dict(ours.named_parameters())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    readers = [
        AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name),
        AutoTokenizer.from_pretrained(folder),
    ]
    text = "the weather <|im_end|> über"
    assert readers[0](text).input_ids == readers[1](text).input_ids
    assert readers[0].chat_template == readers[1].chat_template == TEMPLATE


def test_the_folder_is_an_ordinary_base(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == "float32"
    assert config["tie_word_embeddings"]
    assert "quantization_config" not in config


def test_a_second_start_converts_nothing(
    file: Path, data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "_convert", None)
    monkeypatch.setattr(conversion.hashlib, "file_digest", None)
    said = list[str]()
    assert local_base(str(file), data, said.append) == str(folder)
    assert not said


def test_the_same_file_elsewhere_is_the_same_base(
    file: Path, data: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "_convert", None)
    other = tmp_path / "other.gguf"
    other.write_bytes(file.read_bytes())
    assert local_base(str(other), data, lambda line: None) == str(folder)


@pytest.mark.usefixtures("_here")
def test_a_file_that_has_changed_is_another_base(
    file: Path, data: Path, folder: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed.gguf"
    changed.write_bytes(file.read_bytes())
    first = local_base(str(changed), data, lambda line: None)
    write_gguf(changed, kind=GGMLQuantizationType.BF16)
    second = local_base(str(changed), data, lambda line: None)
    assert first == str(folder) != second
    assert json.loads((Path(second) / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_digest_that_cannot_be_kept_leaves_no_part(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(CannotStart, match="No space left"):
        local_base(str(file), tmp_path, lambda line: None)
    assert not list((tmp_path / "gguf").rglob("*.part"))


@pytest.mark.usefixtures("_here")
def test_two_threads_keep_one_digest_each_whole(
    tmp_path: Path, file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = Barrier(2)
    replace = Path.replace

    def together(part: Path, place: Path) -> Path:
        if place.parent.name == "digests":
            both.wait(timeout=30)  # both have written their part
        return replace(part, place)

    monkeypatch.setattr(Path, "replace", together)
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(local_base, str(file), tmp_path, lambda line: None) for _ in range(2)]
    assert {Path(each.result()).name for each in found} == {folder.name}


@pytest.mark.usefixtures("_here")
def test_two_at_once_convert_once(tmp_path: Path, file: Path) -> None:
    said = list[str]()
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(local_base, str(file), tmp_path, said.append) for _ in range(2)]
    assert both[0].result() == both[1].result()
    assert sum(line.startswith("converting") for line in said) == 1
    assert "another process converts this file; waiting for it" in said


def test_a_conversion_that_is_interrupted_leaves_nothing(tmp_path: Path, file: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from adapters_core.starting import ended_at_once; "
        "from adapters_core.gguf.conversion import local_base\n"
        "with ended_at_once('stopped'): local_base(sys.argv[1], Path(sys.argv[2]), print)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", program, str(file), str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("converting")
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    left = tmp_path / "gguf"
    end = time.monotonic() + 30
    while any(left.glob("*.part")) and time.monotonic() < end:
        time.sleep(0.02)
    assert {path.suffix for path in left.iterdir()} == {"", ".lock"}
    assert [path.name for path in left.iterdir() if path.is_dir()] == ["digests"]


@pytest.mark.usefixtures("_here")
def test_what_a_killed_conversion_has_left_is_removed(
    tmp_path: Path, file: Path, folder: Path
) -> None:
    stale = tmp_path / "gguf" / f".{folder.name}.abc.part"
    stale.mkdir(parents=True)
    (stale / "model.safetensors").write_text("half of it")
    local_base(str(file), tmp_path, lambda line: None)
    assert not stale.exists()


def test_a_full_disk_is_found_out_before(tmp_path: Path, file: Path) -> None:
    with small_disk(tmp_path / "disk", "2m") as small:
        with pytest.raises(CannotStart, match=r"needs 0\.1 GB in .*, 0\.0 GB are free. Make room"):
            local_base(str(file), small, lambda line: None)
        assert [path.name for path in (small / "gguf").iterdir() if path.is_dir()] == ["digests"]


def test_a_disk_that_fills_meanwhile_ends_it_in_words(tmp_path: Path, file: Path) -> None:
    with (
        small_disk(tmp_path / "disk", "200k") as small,
        pytest.raises(OSError, match="No space left on device"),
    ):
        writing.main(file, small)


@pytest.mark.usefixtures("_here")
def test_a_file_without_a_chat_template_is_a_base_without_chats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = list[str]()
    monkeypatch.setattr(writing, "_say", said.append)
    plain = write_gguf(tmp_path / "plain.gguf", template=None)
    folder = Path(local_base(str(plain), tmp_path, lambda line: None))
    assert not (folder / "chat_template.jinja").exists()
    assert "it has no chat template: it continues texts, and chats are refused" in said


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ("grok", "transformers has no way to read architecture 'grok'"),
        ("t5", "architecture 't5' is no language model that writes texts"),
    ],
)
def test_an_architecture_that_is_not_mapped_is_named(
    tmp_path: Path, architecture: str, said: str
) -> None:
    other = write_gguf(tmp_path / "other.gguf", architecture=architecture)
    with pytest.raises(CannotStart, match=said):
        local_base(str(other), tmp_path, lambda line: None)
    assert not any((tmp_path / "gguf").glob("*.part"))


def test_weights_keep_the_smallest_type_that_holds_them_exactly() -> None:
    assert exact_dtype([torch.tensor([1.0, 0.5])]) == torch.bfloat16
    assert exact_dtype([torch.tensor([1.0]), torch.tensor([1 + 2**-10])]) == torch.float16
    assert exact_dtype([torch.tensor([1 + 2**-10]), torch.tensor([1e9])]) == torch.float32


def test_a_base_is_called_as_its_file_or_its_folder() -> None:
    assert base_name_of("/x/SmolLM2.Q4_1.gguf") == "SmolLM2.Q4_1"
    assert base_name_of("/x/SmolLM2.5") == "SmolLM2.5"
    assert base_name_of("org/model") == "model"


def test_other_bases_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert local_base(str(tmp_path), tmp_path, lambda line: None) == str(tmp_path)
    assert not (tmp_path / "gguf").exists()
