"""Bad input of `overtone convert` and `overtone inspect` ends in one line that says why."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tiny
from file_commands import CONFIG, WEIGHTS, refusal, run, said

LEGALESE = str(Path(__file__).parents[3] / "trainer" / "demo" / "adapters" / "legalese")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--to", "nothing"), "--to nothing: is not known; choose fourierft, loca, waveletft"),
        (("--to", "lora"), "--to lora: cannot be projected onto"),
        (("--to", "loca", "--n", "99999"), "n_frequency = 99999, but the layer has"),
        (("--to", "loca", "--n", "0"), "n_frequency = 0"),
        (("--to", "fourierft", "--n", "-3"), "n_frequency = -3"),
        (("--to", "loca", "--seed", "1"), "--seed: loca has none"),
        (("--to", "loca", "--seeds", "2"), "--seed: loca has none"),
        (("--to", "loca", "--scale", "0"), "scale = 0"),
        (("--to", "loca", "--scale", "nan"), "scaling = nan"),
        (("--to", "fourierft", "--wavelet", "db1"), "--wavelet: fourierft has none"),
        (("--to", "loca", "--num-levels", "2"), "--num-levels: loca has none"),
        (("--to", "waveletft", "--num-levels", "40"), "num_levels = 40"),
        (("--to", "fourierft", "--seeds", "0"), "--seeds 0 is not in 1..64"),
        (("--to", "fourierft", "--seeds", "65"), "--seeds 65"),
        (("--to", "fourierft", "--seed", "-1"), "random_loc_seed = -1"),
        (("--to", "fourierft", "--seed", str(2**32 - 1), "--seeds", "2"), "random_loc_seed"),
        (("--to", "waveletft", "--wavelet", "coif9"), "wavelet_family = 'coif9'"),
        (("--n", "5"), "--n: only with --to"),
        (("--seeds", "5"), "--seeds: only with --to"),
        (("--entry-seed", "5"), "--entry-seed does not apply to a LORA file"),
        (("--to", "loca", "--plain"), "PEFT has no method LOCA"),
        (("--dtype", "int8"), "--dtype int8"),
    ],
)
def test_options_that_do_not_fit_end_in_one_line(
    options: tuple[str, ...], reason: str, lora: Path, base: Path, tmp_path: Path
) -> None:
    assert reason in refusal("convert", lora, tmp_path / "out", "--base", base, *options)
    assert not (tmp_path / "out").exists()


def test_sources_that_are_none_end_in_one_line(base: Path, lora: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    empty, pickled = tmp_path / "empty", tmp_path / "pickled"
    empty.mkdir()
    pickled.mkdir()
    (pickled / "adapter_model.bin").write_bytes(b"\x80\x02.")
    for folder, reason in [
        (tmp_path / "nowhere", "is no folder"),
        (lora / CONFIG, "is no folder"),
        (empty, "has no adapter_config.json"),
        (pickled, "a pickle"),
    ]:
        assert reason in refusal("convert", folder, out, "--base", base)
        assert reason in refusal("inspect", folder)
        assert reason in refusal("inspect", folder, "--base", base)
    (lora / WEIGHTS).write_bytes(b"not a file")
    assert "the header claims" in refusal("convert", lora, out, "--base", base)
    assert "the header claims" in refusal("inspect", lora)
    (lora / CONFIG).write_text("{}")
    assert "peft_type is missing" in refusal("inspect", lora)


def test_a_base_that_does_not_fit_ends_in_one_line(
    lora: Path, base: Path, base_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    out, gpt2 = tmp_path / "out", base_folder("gpt2")
    assert "match no adaptable layer" in refusal("convert", lora, out, "--base", gpt2)
    assert "match no adaptable layer" in refusal("inspect", lora, "--base", gpt2)
    missing = refusal("convert", lora, out, "--base", tmp_path / "nowhere")
    assert "cannot be loaded" in missing
    said("convert", lora, out, "--base", base)
    other = tiny.save_base(tmp_path / "other", seed=7)
    assert "this base is 'other'" in refusal("convert", out, tmp_path / "b", "--base", other)


def test_a_picture_that_cannot_be_written_ends_in_one_line(
    lora: Path, base: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder.png").mkdir()
    for file, reason in [
        (tmp_path / "picture.docx", "must end in .png, .pdf, .svg"),
        (tmp_path / "nowhere" / "picture.png", "nowhere is no folder"),
        (tmp_path / "folder.png", "it is a folder"),
    ]:
        assert reason in refusal("inspect", lora, "--base", base, "--plot", file)
    assert "--plot needs --base" in refusal("inspect", lora, "--plot", tmp_path / "a.png")


def test_a_file_in_the_way_ends_in_one_line(lora: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = ("--base", base, "--force")
    assert "file exists" in refusal("convert", lora, tmp_path / "file", *words)
    assert "cannot be written" in refusal("convert", lora, tmp_path / "file" / "out", *words)


def test_the_commands_start_as_a_program(lora: Path, base: Path) -> None:
    """Once for real: no torch for --help, one JSON document on standard output."""
    code = (
        "import sys, typer; from server.tools.commands import inspect; "
        "assert 'torch' not in sys.modules; typer.run(inspect)"
    )
    root = Path(__file__).parents[3]
    paths = os.pathsep.join(map(str, (root, root / "client")))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(lora), "--base", str(base), "--json"],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["method"] == "lora"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("inspect", "{here}/nothing"), "invalid_argument"),
        (("inspect", LEGALESE, "--base", "{here}/no"), "base_not_loadable"),
        (("convert", "{here}/nothing", "{here}/out", "--base", "x"), "invalid_argument"),
    ],
)
def test_a_fault_is_json_where_json_was_asked_for(
    arguments: tuple[str, ...], code: str, tmp_path: Path
) -> None:
    done = run(*(word.format(here=tmp_path) for word in arguments), "--json")
    assert done.exit_code == 1
    assert done.stdout == ""
    error = json.loads(done.stderr)["error"]
    assert set(error) == {"message", "code", "next_step"}
    assert error["code"] == code
    assert str(tmp_path) in error["message"]
