"""A GGUF file that is no base is refused by its header, before anything heavy is imported."""

import importlib.util
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from adapters_core import gguf_faults
from adapters_core.gguf_faults import NoBase, check_gguf
from adapters_core.gguf_header import has_magic, read_header
from adapters_core.starting import CannotStart, check_base
from gguf_files import write_gguf

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("files") / "tiny.gguf")


def refusal(file: Path) -> str:
    with pytest.raises(NoBase) as caught:
        check_gguf(file)
    return str(caught.value)


def cut(whole: Path, to: int, folder: Path) -> Path:
    short = folder / "short.gguf"
    short.write_bytes(whole.read_bytes()[:to])
    return short


def test_a_header_is_read_as_the_gguf_package_reads_it(whole: Path) -> None:
    from gguf import GGUFReader

    theirs, ours = GGUFReader(whole), read_header(whole)
    assert ours.architecture == "llama"
    assert ours.start == theirs.data_offset
    expected = [(t.name, tuple(t.shape), int(t.tensor_type)) for t in theirs.tensors]
    assert [(t.name, t.shape, t.type) for t in ours.tensors] == expected
    assert [ours.start + t.offset for t in ours.tensors] == [t.data_offset for t in theirs.tensors]
    for key in ("llama.block_count", "llama.attention.layer_norm_rms_epsilon"):
        assert ours.values[key] == pytest.approx(theirs.fields[key].contents())
    assert ours.numbers == sum(t.n_elements for t in theirs.tensors)


def test_a_whole_file_is_taken(whole: Path) -> None:
    assert has_magic(whole)
    check_base(str(whole))


def test_no_gguf_file_says_what_is_wanted(tmp_path: Path) -> None:
    other = tmp_path / "model.gguf"
    other.write_text("<html>404</html>")
    said = refusal(other)
    assert "not in GGUF's format. Give a folder with config.json" in said
    with pytest.raises(CannotStart, match="base '.*model.gguf' cannot be loaded: it is a file"):
        check_base(str(other))


@pytest.mark.parametrize("part", [0.5, 0.99])
def test_a_file_that_ends_within_its_tensors_is_cut_off(
    whole: Path, tmp_path: Path, part: float
) -> None:
    size = whole.stat().st_size
    said = refusal(cut(whole, int(part * size), tmp_path))
    assert f"it is cut off: it has {int(part * size)} of " in said
    assert said.endswith("Copy or download it once more")


def test_a_file_that_ends_within_its_header_is_cut_off(whole: Path, tmp_path: Path) -> None:
    start = read_header(whole).start
    for size in (*range(5, 60), start // 2, start - 40):
        assert "it ends within its header" in refusal(cut(whole, size, tmp_path))


def test_a_header_of_nonsense_is_refused(whole: Path, tmp_path: Path) -> None:
    """Every byte of the first kilobyte in turn: a refusal, or a file that reads all the same."""
    content = bytearray(whole.read_bytes())
    damaged = tmp_path / "damaged.gguf"
    for at in range(4, 1024, 3):
        old, content[at] = content[at], 255
        damaged.write_bytes(content)
        content[at] = old
        with suppress(NoBase):
            check_gguf(damaged)


def test_an_old_version_is_named(whole: Path, tmp_path: Path) -> None:
    content = bytearray(whole.read_bytes())
    content[4] = 1
    old = tmp_path / "old.gguf"
    old.write_bytes(content)
    assert "it is of GGUF's version 1; versions 2 and 3 are read" in refusal(old)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tokenizer": False}, "it has no tokenizer"),
        ({"more": {"split.count": 3}}, "it is one of 3 parts of a model. Join them with"),
        ({"more": {"general.type": "adapter"}}, "it holds no model but 'adapter'"),
    ],
)
def test_what_is_no_base_is_named(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    assert said in refusal(write_gguf(tmp_path / "other.gguf", **given))


def test_an_unknown_encoding_is_named(whole: Path, tmp_path: Path) -> None:
    content = whole.read_bytes()
    header = read_header(whole)
    name = header.tensors[0].name.encode()
    at = content.index(name) + len(name) + 4 + 8 * len(header.tensors[0].shape)
    other = tmp_path / "other.gguf"
    other.write_bytes(content[:at] + b"\xfe\x00\x00\x00" + content[at + 4 :])
    assert f"tensor {name.decode()!r} is of ggml's type 254" in refusal(other)


def test_a_missing_package_is_named(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        gguf_faults.importlib.util,
        "find_spec",
        lambda name: None if name == "gguf" else found(name),
    )
    said = refusal(whole)
    assert "the package gguf is not installed" in said
    assert "pip install 'overtone[gguf]'" in said


def test_none_of_it_imports_what_takes_seconds(whole: Path) -> None:
    program = (
        "import sys; from adapters_core.starting import check_base; check_base(sys.argv[1]); "
        "print(*{'torch', 'transformers', 'numba'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(whole)],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")
