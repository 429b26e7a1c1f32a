"""`overtone inspect`: what it tells of every layer, in words, JSON and pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import tiny
from adapters_core.base.spec import BaseSpec, weights_of
from adapters_core.contract.method import Shape
from file_commands import QUERIES, WEIGHTS, deltas, read, refusal, run, said
from peft_made import make
from server.tools.adapter_folder import AdapterFolder


def test_inspection_tells_of_every_layer(lora: Path, base: Path, spec: BaseSpec) -> None:
    facts = said("inspect", lora, "--base", base)
    weights = weights_of(tiny.model("llama"), spec)
    true = deltas(read(lora, spec), spec)
    assert facts["method"] == "lora"
    assert facts["digest"] == AdapterFolder(lora).digest
    assert facts["size_bytes"] == (lora / WEIGHTS).stat().st_size
    assert facts["base"] == {
        "name": base.name,
        "fingerprint": spec.fingerprint,
        "verified": False,
    }
    assert [layer["target"] for layer in facts["layers"]] == list(true)
    for layer in facts["layers"]:
        delta = true[layer["target"]]
        norm = float(delta.norm())
        assert layer["shape"] == list(spec.targets[layer["target"]])
        assert layer["num_coefficients"] == 4 * sum(layer["shape"])
        assert layer["places"] is None
        assert layer["delta_norm"] == pytest.approx(norm, rel=1e-5)
        whole = float(weights.weight(layer["target"]).norm())
        assert layer["relative_norm"] == pytest.approx(norm / whole, rel=1e-4)
        largest = float(torch.linalg.matrix_norm(delta, ord=2))
        assert layer["stable_rank"] == pytest.approx((norm / largest) ** 2, rel=1e-3)


def test_what_is_no_linear_is_inspected_and_comes_back(
    unusual: Path, base: Path, tmp_path: Path
) -> None:
    layers = said("inspect", unusual, "--base", base)["layers"]
    assert [layer["target"] for layer in layers][:2] == QUERIES
    assert len(layers) == 3
    alone = said("inspect", unusual)["layers"]
    assert {layer["target"] for layer in alone} == {layer["target"] for layer in layers}
    ours, plain = tmp_path / "ours", tmp_path / "plain"
    assert said("convert", unusual, ours, "--base", base)["base_verified"]
    said("convert", ours, plain, "--base", base, "--plain")
    before, after = load_file(unusual / WEIGHTS), load_file(plain / WEIGHTS)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_seeded_positions_are_told_once_a_shape(base: Path, tmp_path: Path) -> None:
    make("llama", 0, tmp_path / "adapter")
    facts = said("inspect", tmp_path / "adapter", "--base", base)
    places = {tuple(layer["shape"]): layer["places"] for layer in facts["layers"]}
    assert {shape: (p["n"], p["distinct"]) for shape, p in places.items()} == {
        (96, 96): (40, 40),
        (32, 96): (40, 40),
    }
    text = run("inspect", tmp_path / "adapter", "--base", base).stdout
    for found in places.values():
        assert text.count(found["digest"]) == 1
    assert text.count("and 1 more") == 2


@pytest.mark.parametrize("number", range(2))
def test_the_file_alone_says_something_too(number: int, base: Path, tmp_path: Path) -> None:
    make("llama", number, tmp_path / "adapter")
    alone = said("inspect", tmp_path / "adapter")
    with_base = said("inspect", tmp_path / "adapter", "--base", base)
    assert alone["base"] is None
    assert alone["digest"] == with_base["digest"]
    assert alone["num_coefficients"] == with_base["num_coefficients"]
    energies = [{x["target"]: x["energy"] for x in f["layers"]} for f in (alone, with_base)]
    assert energies[0] == pytest.approx(energies[1])
    assert "not given" in run("inspect", tmp_path / "adapter").stdout


def test_layers_are_chosen_by_a_pattern(lora: Path, base: Path) -> None:
    for words in (("--base", base), ()):
        facts = said("inspect", lora, *words, "--layers", "*.1.*q_proj")
        assert [layer["target"] for layer in facts["layers"]] == QUERIES[1:]
    assert "--layers *.9.* fits none of model." in refusal("inspect", lora, "--layers", "*.9.*")


def test_a_narrow_terminal_shows_every_number(lora: Path, base: Path) -> None:
    text = run("inspect", lora, "--base", base, width=80).stdout
    assert "…" not in text
    assert "stable rank" in text


@pytest.mark.parametrize("to", ["loca", "fourierft"])
def test_the_picture_is_a_picture(to: str, lora: Path, base: Path, tmp_path: Path) -> None:
    said("convert", lora, tmp_path / "out", "--base", base, "--to", to, "--n", "50")
    file = tmp_path / "updates.png"
    words = ("inspect", tmp_path / "out", "--base", base, "--plot", file)
    assert run(*words, "--layers", "*.0.*").exit_code == 0
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert min(pixels.shape[:2]) > 300
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100
    height = len(pixels)
    assert run(*words).exit_code == 0
    with Image.open(file) as image:
        assert image.height > 1.5 * height  # all four layers


@pytest.mark.parametrize(("suffix", "begins"), [(".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_the_suffix_chooses_the_kind_of_picture(
    suffix: str, begins: bytes, lora: Path, base: Path, tmp_path: Path
) -> None:
    file = tmp_path / f"updates{suffix}"
    run("inspect", lora, "--base", base, "--plot", file, "--layers", QUERIES[0])
    content = file.read_bytes()
    assert content.startswith(begins)
    assert len(content) > 5000


def test_shapes_of_the_tiny_base_are_what_the_sums_above_say(spec: BaseSpec) -> None:
    assert spec.targets[QUERIES[0]] == Shape(96, 96)
    assert spec.targets["model.layers.0.self_attn.v_proj"] == Shape(32, 96)
