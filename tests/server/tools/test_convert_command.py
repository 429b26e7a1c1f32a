"""`overtone convert`: there and back, from the authors' code, and onto another method."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel, PeftType
from peft.utils import load_peft_weights
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import tiny
from adapters_core.base.spec import BaseSpec, weights_of
from adapters_core.contract.method_registry import registered
from adapters_core.format.write import write_adapter
from adapters_core.interchange.fits import FITTED
from adapters_core.layers.basis_cache import BasisCache
from file_commands import CONFIG, QUERIES, WEIGHTS, deltas, read, refusal, run, said
from made import CPU, random_adapter
from peft_made import KINDS, make
from server.tools.convert import PEFT_TYPES

PEFTS = sorted(name for name, kind in registered().items() if kind.peft_type in PEFT_TYPES)


def test_the_list_of_pefts_types_is_pefts() -> None:
    assert {kind.value for kind in PeftType} == PEFT_TYPES


@pytest.mark.parametrize("number", range(KINDS))
def test_every_kind_of_file_comes_back_bit_by_bit(number: int, base: Path, tmp_path: Path) -> None:
    theirs, ours, plain = tmp_path / "theirs", tmp_path / "ours", tmp_path / "plain"
    make("llama", number, theirs)
    first = said("convert", theirs, ours, "--base", base)
    assert first["base_verified"]
    assert first["kept"] is None
    if json.loads((ours / CONFIG).read_bytes())["peft_type"] not in PEFT_TYPES:
        assert "PEFT has no method" in refusal("convert", ours, plain, "--base", base, "--plain")
        return
    assert not said("convert", ours, plain, "--base", base, "--plain")["base_verified"]
    assert (plain / CONFIG).read_bytes() == (theirs / CONFIG).read_bytes()
    before, after = load_file(theirs / WEIGHTS), load_file(plain / WEIGHTS)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    with safe_open(plain / WEIGHTS, "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("name", PEFTS)
@pytest.mark.filterwarnings("ignore")  # PEFT's own
def test_peft_loads_the_plain_file_of_every_method_of_its_own(
    name: str, base: Path, spec: BaseSpec, tmp_path: Path
) -> None:
    model = tiny.model("llama")
    bases = BasisCache(CPU, weights_of(model, spec))
    shapes = {path: spec.targets[path] for path in QUERIES}
    methods, layers = random_adapter(registered()[name](), shapes, bases, 1)
    write_adapter(tmp_path / "ours", methods, layers, spec)
    said("convert", tmp_path / "ours", tmp_path / "plain", "--base", base, "--plain")
    saved = load_file(tmp_path / "plain" / WEIGHTS)
    ours = load_file(tmp_path / "ours" / WEIGHTS)
    assert saved.keys() == ours.keys()
    assert all(torch.equal(saved[key], ours[key]) for key in ours)
    loaded = PeftModel.from_pretrained(model, tmp_path / "plain")
    assert loaded.peft_config["default"].peft_type == registered()[name].peft_type
    assert load_peft_weights(str(tmp_path / "plain")).keys() == ours.keys()


def test_a_converted_folder_is_the_same_whoever_writes_it(
    lora: Path, base: Path, tmp_path: Path
) -> None:
    digests = {said("convert", lora, tmp_path / name, "--base", base)["digest"] for name in "ab"}
    assert len(digests) == 1


def test_an_existing_folder_is_replaced_only_by_force(
    lora: Path, base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert "exists; --force" in refusal("convert", lora, out, "--base", base)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    said("convert", lora, out, "--base", base, "--force")
    assert sorted(path.name for path in out.iterdir()) == [CONFIG, WEIGHTS, "notes.txt"]
    said("convert", out, out, "--base", base, "--force", "--plain")
    assert load_file(out / WEIGHTS).keys() == load_file(lora / WEIGHTS).keys()


def test_nothing_is_left_where_a_conversion_fails(lora: Path, base: Path, tmp_path: Path) -> None:
    refusal("convert", lora, tmp_path / "new" / "out", "--base", base, "--to", "loca", "--n", "0")
    refusal("convert", lora, tmp_path / "out", "--base", base, "--to", "loca", "--n", "99999")
    assert [path.name for path in tmp_path.iterdir()] == ["lora"]


def test_an_official_checkpoint_becomes_a_served_adapter(
    base: Path, spec: BaseSpec, tmp_path: Path
) -> None:
    folder = tmp_path / "official"
    folder.mkdir()
    config = {"peft_type": "FOURIER", "n_frequency": 20, "scale": 30.0}
    (folder / CONFIG).write_text(json.dumps(config))
    spectrum = torch.randn(20, generator=torch.Generator().manual_seed(0))
    tensors = {f"base_model.model.{path}.spectrum.default": spectrum * 1.0 for path in QUERIES}
    save_file(tensors, folder / WEIGHTS)
    assert "--entry-seed" in refusal("convert", folder, tmp_path / "out", "--base", base)
    assert "convert` it first" in refusal("inspect", folder, "--base", base)
    words = ("convert", folder, tmp_path / "out", "--base", base, "--entry-seed", 2024)
    assert said(*words)["method_config"]["transposed"]
    width = 96
    flat = torch.randperm(width**2, generator=torch.Generator().manual_seed(2024))[:20]
    dense = torch.zeros(width, width)
    dense[flat // width, flat % width] = spectrum
    update = torch.fft.ifft2(dense.double()).real * 30.0  # x @ update
    for delta in deltas(read(tmp_path / "out", spec), spec).values():
        assert (delta - update.T).norm() <= 1e-5 * update.norm()
    assert "PEFT has no seed" in refusal(*words[:2], tmp_path / "p", *words[3:], "--plain")


@pytest.mark.parametrize("to", FITTED)
def test_projection_says_what_it_keeps(
    to: str, lora: Path, base: Path, spec: BaseSpec, tmp_path: Path
) -> None:
    done = said("convert", lora, tmp_path / "out", "--base", base, "--to", to, "--n", "500")
    assert done["source_method"] == "lora"
    assert done["method"] == to
    assert done["method_config"]["n"] == 500
    before = deltas(read(lora, spec), spec)
    after = deltas(read(tmp_path / "out", spec), spec)
    for path, delta in before.items():
        kept = 1 - float((delta - after[path]).square().sum() / delta.square().sum())
        assert done["kept"]["layers"][path] == pytest.approx(kept, abs=1e-5)
    assert 0 < done["kept"]["overall"] < 1


def test_the_options_of_a_projection_reach_the_file(
    lora: Path, base: Path, spec: BaseSpec, tmp_path: Path
) -> None:
    words = ("convert", lora, tmp_path / "out", "--base", base, "--to", "waveletft", "--n", 40)
    said(*words, "--scale", 2.5, "--wavelet", "db2", "--seed", 9, "--num-levels", 2)
    wanted = {"n": 40, "scale": 2.5, "wavelet": "db2", "seed": 9, "num_levels": 2}
    for method in read(tmp_path / "out", spec).methods.values():
        assert wanted.items() <= method.config().items()


def test_a_person_is_told_that_seeded_positions_keep_little(
    lora: Path, base: Path, tmp_path: Path
) -> None:
    words = ("convert", lora, tmp_path / "out", "--base", base, "--to", "fourierft", "--n", 96)
    text = run(*words, "--seeds", 3).stdout
    assert "model.layers.0.self_attn.q_proj" in text
    assert "over all layers" in text
    # Queries are 96 x 96, values 32 x 96: 4 * 96 places of 2 * (96 * 96 + 32 * 96).
    assert "their own share of all positions, here 1.56%" in text
    best = run(*words[:2], tmp_path / "loca", *words[3:5], "--to", "loca", "--n", 96).stdout
    assert "over all layers" in best
    assert "share of all positions" not in best


def test_what_is_no_linear_is_not_projected(unusual: Path, base: Path, tmp_path: Path) -> None:
    words = ("--base", base, "--to", "fourierft", "--n", "40")
    error = refusal("convert", unusual, tmp_path / "out", *words)
    assert "embed_tokens" in error or "lm_head" in error
    assert not (tmp_path / "out").exists()
