"""`overtone convert` and `overtone inspect` as a person runs them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from peft import LoraConfig, PeftModel, PeftType, get_peft_model
from peft.utils import load_peft_weights
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

import tiny
from adapters_core.base.spec import BaseSpec, spec_of, weights_of
from adapters_core.contract.method import Shape
from adapters_core.contract.method_registry import registered
from adapters_core.format.read import Adapter
from adapters_core.format.write import write_adapter
from adapters_core.interchange.fits import FITTED
from adapters_core.layers.basis_cache import BasisCache
from made import CPU, random_adapter
from peft_made import KINDS, make, quiet
from server.tools.adapter_folder import AdapterFolder
from server.tools.commands import convert, inspect
from server.tools.convert import PEFT_TYPES

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
LEGALESE = str(Path(__file__).parents[3] / "trainer" / "demo" / "adapters" / "legalese")
QUERIES = [f"model.layers.{i}.self_attn.q_proj" for i in range(2)]
PEFTS = sorted(name for name, kind in registered().items() if kind.peft_type in PEFT_TYPES)


def run(*arguments: object, width: int = 200) -> Result:
    """Run the program's two commands; a traceback is the test's, not the program's."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("convert")(convert)
    app.command("inspect")(inspect)
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(app, words, env={"COLUMNS": str(width)}, catch_exceptions=False)


def said(*arguments: object) -> Any:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def refusal(*arguments: object) -> str:
    """Return the one line that a refused command ends with."""
    done = run(*arguments)
    assert done.exit_code == 1, done.output
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.fixture(scope="module")
def base(base_folder: Callable[[str], Path]) -> Path:
    return base_folder("llama")


@pytest.fixture(scope="module")
def spec(base: Path) -> BaseSpec:
    return spec_of(tiny.model("llama"), base.name)


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """PEFT's own LoRA on the queries and values."""
    make("llama", 1, tmp_path / "lora")
    return tmp_path / "lora"


def read(folder: Path, spec: BaseSpec) -> Adapter:
    return AdapterFolder(folder).read(spec)


def deltas(adapter: Adapter, spec: BaseSpec) -> dict[str, torch.Tensor]:
    bases = BasisCache(CPU)
    return {
        path: method.delta(
            adapter.layers[path], spec.targets[path], bases.get(method, spec.targets[path])
        ).double()
        for path, method in adapter.methods.items()
    }


# There and back.


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


# From the authors' code.


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


# Onto another method.


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


# Inspection.


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


@pytest.fixture(scope="module", params=["embedding", "tokens", "saved"])
def unusual(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PEFT's own LoRA that changes an embedding or an output layer, too."""
    fields: dict[str, Any] = {
        "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
        "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [5, 9]},
        "saved": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    }[request.param]
    folder = tmp_path_factory.mktemp("unusual")
    with quiet():
        config = LoraConfig(r=2, init_lora_weights=False, task_type="CAUSAL_LM", **fields)
        get_peft_model(tiny.model("llama"), config).save_pretrained(str(folder))
    return folder


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


def test_what_is_no_linear_is_not_projected(unusual: Path, base: Path, tmp_path: Path) -> None:
    words = ("--base", base, "--to", "fourierft", "--n", "40")
    error = refusal("convert", unusual, tmp_path / "out", *words)
    assert "embed_tokens" in error or "lm_head" in error
    assert not (tmp_path / "out").exists()


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


# Pictures.


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


# Bad input.


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


def test_shapes_of_the_tiny_base_are_what_the_sums_above_say(spec: BaseSpec) -> None:
    assert spec.targets[QUERIES[0]] == Shape(96, 96)
    assert spec.targets["model.layers.0.self_attn.v_proj"] == Shape(32, 96)


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
