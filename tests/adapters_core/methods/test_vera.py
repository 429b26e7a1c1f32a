"""VeRA against the paper's product and PEFT's own files."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, VeraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.method import Method, Rows, Segment, Shape
from adapters_core.errors import InvalidAdapter, NoEffect, UnusedTensors
from adapters_core.format.read import Adapter
from adapters_core.format.write import write_adapter
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.methods.vera import MAX_NUMBERS, VeRA
from beside_peft import BesidePeft, saved_by_peft
from made import random_adapter
from tiny_bases import change_config, change_tensors, relative, tiny_llama, without_warnings

CPU = torch.device("cpu")
LM = {"task_type": "CAUSAL_LM"}
QUERY = "base_model.model.model.layers.0.self_attn.q_proj."
Read = Callable[..., Adapter]


def config(**options: Any) -> VeraConfig:
    with without_warnings():
        return VeraConfig(**({"target_modules": ["q_proj", "v_proj"], "r": 4} | options | LM))


def saved(folder: Path, **options: Any) -> PeftModel:
    return saved_by_peft(tiny_llama(), config(**options), folder, "vera_lambda")


def ours(
    method: VeRA, spec: BaseSpec, seed: int = 0, ends: tuple[str, ...] = ("q_proj", "v_proj")
) -> tuple[dict[str, Method], dict[str, dict[str, Tensor]]]:
    shapes = {t: shape for t, shape in spec.targets.items() if t.endswith(ends)}
    return random_adapter(method, shapes, BasisCache(CPU), seed)


def test_delta_is_the_papers_product() -> None:
    shape, method = Shape(4, 6), VeRA(r=3, seed=5, save=True, widest=Shape(5, 7))
    layer = method.init(shape, torch.Generator())
    layer["vera_lambda_b"] = torch.tensor([0.5, -1.0, 2.0, 0.25])
    layer["vera_lambda_d"] = torch.tensor([1.0, -3.0, 0.5])
    down, up = layer["vera_A"].tolist(), layer["vera_B"].tolist()
    b, d = layer["vera_lambda_b"].tolist(), layer["vera_lambda_d"].tolist()
    true = torch.zeros(4, 6, dtype=torch.float64)
    for p in range(4):
        for q in range(6):
            true[p, q] = sum(b[p] * up[p][k] * d[k] * down[k][q] for k in range(3))
    basis = method.basis(shape, CPU, torch.float32)
    assert relative(method.delta(layer, shape, basis), true) < 1e-6
    cells = torch.arange(24)
    exact = method.cells(layer, shape, cells // 6, cells % 6).view(4, 6)
    assert relative(exact, true) < 1e-14


@pytest.mark.parametrize("seed", [0, 3, 2**32 - 1])
def test_matrices_are_pefts_bit_for_bit(seed: int) -> None:
    options = {"target_modules": ["q_proj", "down_proj"], "projection_prng_key": seed}
    with without_warnings():
        theirs = get_peft_model(tiny_llama(), config(r=5, **options)).base_model
    method = VeRA(r=5, seed=seed, save=True, widest=Shape(96, 180))
    fresh = method.init(Shape(96, 96), torch.Generator())
    assert torch.equal(fresh["vera_A"], theirs.vera_A["default"])
    assert torch.equal(fresh["vera_B"], theirs.vera_B["default"])


@pytest.mark.parametrize("save", [True, False])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {}),
        ("llama", {"target_modules": ["v_proj", "up_proj", "down_proj"], "r": 20}),
        ("llama", {"target_modules": "all-linear", "projection_prng_key": 7, "r": 33}),
        ("llama", {"layers_to_transform": [1], "d_initial": 0.3, "vera_dropout": 0.1}),
        ("gpt2", {"target_modules": ["c_attn", "mlp.c_proj"], "fan_in_fan_out": True}),
    ],
    ids=["gqa", "mlp", "all-linear", "one-layer", "gpt2"],
)
def test_deltas_and_logits_are_pefts(
    kind: str, options: dict[str, Any], save: bool, tmp_path: Path, read: Read
) -> None:
    made = config(save_projection=save, **options)
    both = BesidePeft(kind, made, tmp_path, read, "vera_lambda")
    both.check()
    for method in both.adapter.methods.values():
        assert isinstance(method, VeRA)
        assert (method.r, method.save) == (made.r, save)
        assert method.projections is None  # the seed's own: nothing is kept twice


def test_matrices_of_no_seed_are_the_files(tmp_path: Path, read: Read) -> None:
    saved(tmp_path)

    def redraw(tensors: dict[str, Tensor]) -> None:
        for name in ("vera_A", "vera_B"):
            shape, generator = tensors[f"base_model.{name}"].shape, torch.Generator()
            tensors[f"base_model.{name}"] = torch.randn(shape, generator=generator)

    seeded = read(tmp_path)
    change_tensors(tmp_path, redraw)
    with without_warnings():
        theirs = PeftModel.from_pretrained(tiny_llama(), str(tmp_path)).base_model.model
    adapter = read(tmp_path)
    for target, method in adapter.methods.items():
        shape = Shape(*theirs.get_submodule(target).weight.shape)
        delta = method.delta(adapter.layers[target], shape, BasisCache(CPU).get(method, shape))
        their = theirs.get_submodule(target).get_delta_weight("default").detach()
        assert relative(delta, their) <= 1e-6
        cells = torch.arange(shape.out * shape.in_)
        rows, cols = cells // shape.in_, cells % shape.in_
        exact = method.cells(adapter.layers[target], shape, rows, cols)
        assert relative(exact.view(shape), their) <= 1e-6
        assert method.signature(shape) != seeded.methods[target].signature(shape)
        assert method == read(tmp_path).methods[target]


def test_half_precision_matrices_are_taken_as_they_are(tmp_path: Path, read: Read) -> None:
    saved(tmp_path)
    key = "base_model.vera_A"
    change_tensors(tmp_path, lambda tensors: tensors.update({key: tensors[key].bfloat16()}))
    method = next(iter(read(tmp_path).methods.values()))
    assert isinstance(method, VeRA)
    assert method.projections is not None
    assert torch.equal(
        method.projections.down, load_file(tmp_path / "adapter_model.safetensors")[key].float()
    )


def test_saved_and_unsaved_matrices_share_a_bank(
    tmp_path: Path, llama_spec: BaseSpec, read: Read
) -> None:
    saved(tmp_path / "saved")
    saved(tmp_path / "unsaved", save_projection=False)
    one, other = read(tmp_path / "saved"), read(tmp_path / "unsaved")
    layouts = [Layout.of(adapter.methods, llama_spec.targets) for adapter in (one, other)]
    assert layouts[0].key == layouts[1].key
    bank = Bank(layouts[0], BasisCache(CPU), layers=one.layers)
    assert torch.equal(bank.pack(one.methods, one.layers), bank.pack(other.methods, other.layers))
    assert bank.row_bytes == 4 * 2 * (96 + 16 + 32 + 16)  # vectors alone; ranks in sixteens


def test_seed_rank_and_widest_layer_choose_the_bank() -> None:
    shape, wide = Shape(4, 6), Shape(8, 6)
    one = VeRA(r=3, widest=shape).signature(shape)
    assert one == VeRA(r=3, widest=shape, initial=2.0, save=True).signature(shape)
    for other in (VeRA(r=4, widest=shape), VeRA(r=3, seed=1), VeRA(r=3, widest=wide)):
        assert other.signature(shape) != one


def test_layers_that_see_the_same_rows_share_a_x() -> None:
    method = VeRA(r=3, widest=Shape(96, 96))
    query, value = Shape(96, 96), Shape(32, 96)
    x = torch.randn(5, 96, generator=torch.Generator().manual_seed(0))
    assert method.analysis_key(query) == method.analysis_key(value)
    first, second = (
        method.analyse(x, shape, method.basis(shape, CPU, torch.float32))
        for shape in (query, value)
    )
    assert torch.equal(first, second)
    assert method.analysis_key(Shape(32, 90)) != method.analysis_key(query)


@pytest.mark.parametrize("r", [1, 3, 5, 16, 23])
@pytest.mark.parametrize("shape", [Shape(45, 77), Shape(5, 31), Shape(96, 6)], ids=str)
def test_row_has_its_bits_wherever_it_stands(shape: Shape, r: int) -> None:
    """Narrow products over odd lengths give other bits to a row that stands elsewhere."""
    made = [random_adapter(VeRA(r=r), {"": shape}, BasisCache(CPU), seed) for seed in range(2)]
    bank = Bank(Layout.of(made[0][0], {"": shape}), BasisCache(CPU), slots=2)
    slots = torch.tensor([bank.add(bank.pack(*one)) for one in made])
    x = torch.randn(19, shape.in_, generator=torch.Generator().manual_seed(3))
    picked = slots[torch.randint(2, (19,), generator=torch.Generator().manual_seed(4))]
    whole = bank.apply("", x, Rows(picked, 19))
    assert whole is not None
    for start, stop in [(0, 1), (18, 19), (1, 2), (0, 5), (7, 16), (1, 19)]:
        rows = Rows(picked[start:stop], 0, (Segment(0, stop - start, 0),))
        part = bank.apply("", x[start:stop], rows)
        assert part is not None
        assert torch.equal(part, whole[start:stop])


@pytest.mark.parametrize("save", [True, False])
def test_peft_gives_what_we_wrote_the_same_deltas(
    save: bool, llama_spec: BaseSpec, tmp_path: Path, read: Read
) -> None:
    method = VeRA(r=6, seed=9, save=save)
    methods, layers = ours(method, llama_spec, ends=("q_proj", "up_proj", "down_proj"))
    write_adapter(tmp_path, methods, layers, llama_spec)
    held = load_file(tmp_path / "adapter_model.safetensors")
    assert ("base_model.vera_A" in held, "base_model.vera_B" in held) == (save, save)
    with without_warnings():
        theirs = PeftModel.from_pretrained(tiny_llama(), str(tmp_path)).base_model.model
    adapter = read(tmp_path)
    assert dict(adapter.methods) == methods
    for target, layer in layers.items():
        shape = llama_spec.targets[target]
        delta = methods[target].delta(layer, shape, BasisCache(CPU).get(methods[target], shape))
        their = theirs.get_submodule(target).get_delta_weight("default").detach()
        assert relative(delta, their) <= 1e-6


def test_digest_in_the_header_is_held_against_what_is_drawn(
    llama_spec: BaseSpec, tmp_path: Path, read: Read
) -> None:
    write_adapter(tmp_path, *ours(VeRA(r=6, seed=9), llama_spec), llama_spec)
    read(tmp_path)
    change_config(tmp_path, {"projection_prng_key": 8})  # as a machine that draws other numbers
    with pytest.raises(InvalidAdapter, match="gives other matrices here") as caught:
        read(tmp_path)
    assert caught.value.param == "projection_prng_key"


def test_either_vector_zero_is_no_update(tmp_path: Path, read: Read) -> None:
    layer = {"vera_lambda_b": torch.ones(4), "vera_lambda_d": torch.ones(3)}
    assert not VeRA(r=3).is_zero(layer)
    for name in layer:
        assert VeRA(r=3).is_zero(layer | {name: torch.zeros_like(layer[name])})
    with without_warnings():
        get_peft_model(tiny_llama(), config()).save_pretrained(str(tmp_path))
    with pytest.raises(NoEffect):
        read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"r": 0}, "r"),
        ({"r": -1}, "r"),
        ({"r": 1.5}, "r"),
        ({"r": 10**4299}, "r"),
        ({"r": None, "save_projection": False}, QUERY + "vera_lambda_d"),  # PEFT's default, 256
        ({"projection_prng_key": -1}, "projection_prng_key"),
        ({"projection_prng_key": 2**32}, "projection_prng_key"),
        ({"projection_prng_key": "0"}, "projection_prng_key"),
        ({"d_initial": "much"}, "d_initial"),
        ({"d_initial": math.inf}, "d_initial"),
        ({"save_projection": 1}, "save_projection"),
        ({"bias": "vera_only"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
    ],
)
def test_bad_config_is_refused_by_name(
    changes: dict[str, Any], param: str, tmp_path: Path, read: Read
) -> None:
    saved(tmp_path)
    change_config(tmp_path, changes)
    with pytest.raises(InvalidAdapter) as caught:
        read(tmp_path)
    assert caught.value.param == param


@pytest.mark.parametrize("claims_digest", [False, True])
def test_rank_too_large_for_the_widths_is_refused_before_anything_is_drawn(
    claims_digest: bool,
    llama_spec: BaseSpec,
    tmp_path: Path,
    read: Read,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_adapter(tmp_path, *ours(VeRA(r=6), llama_spec), llama_spec)
    if not claims_digest:
        change_tensors(tmp_path, lambda tensors: None)  # rewritten without our header
    monkeypatch.setattr(torch.Tensor, "uniform_", None)
    most = MAX_NUMBERS // (96 + 96)
    change_config(tmp_path, {"r": most + 1})
    with pytest.raises(InvalidAdapter, match=f"at most {most} ") as caught:
        read(tmp_path)
    assert caught.value.param == "r"
    change_config(tmp_path, {"r": most})  # within the cap, but the vectors are of length 6
    with pytest.raises(InvalidAdapter, match="vera_lambda_d has shape") as caught:
        read(tmp_path)


def test_missing_or_unexpected_matrices_are_refused_by_name(tmp_path: Path, read: Read) -> None:
    saved(tmp_path)
    change_config(tmp_path, {"save_projection": False})
    with pytest.raises(UnusedTensors) as unused:
        read(tmp_path)
    assert unused.value.param in ("base_model.vera_A", "base_model.vera_B")
    change_config(tmp_path, {"save_projection": True})
    change_tensors(tmp_path, lambda tensors: tensors.pop("base_model.vera_B"))
    with pytest.raises(InvalidAdapter, match="missing") as caught:
        read(tmp_path)
    assert caught.value.param == "base_model.vera_B"


@pytest.mark.parametrize("name", [QUERY + "vera_lambda_b", "base_model.vera_A"])
@pytest.mark.parametrize("fault", ["longer", "integers", "NaN"])
def test_bad_tensors_are_refused_by_name(name: str, fault: str, tmp_path: Path, read: Read) -> None:
    saved(tmp_path)

    def change(tensors: dict[str, Tensor]) -> None:
        old = tensors[name]
        spoilt = {
            "longer": torch.cat([old, old]),
            "integers": old.int(),
            "NaN": torch.full_like(old, math.nan),
        }
        tensors[name] = spoilt[fault]

    change_tensors(tmp_path, change)
    with pytest.raises(InvalidAdapter) as caught:
        read(tmp_path)
    assert caught.value.param == name


def test_tensors_without_their_layers_are_refused(tmp_path: Path, read: Read) -> None:
    saved(tmp_path)
    change_config(tmp_path, {"target_modules": None})

    def keep_shared(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if "lambda" in name]:
            tensors.pop(name)

    change_tensors(tmp_path, keep_shared)
    with pytest.raises(UnusedTensors):
        read(tmp_path)


def test_config_we_wrote_is_what_peft_would_have_written(
    llama_spec: BaseSpec, tmp_path: Path
) -> None:
    write_adapter(tmp_path, *ours(VeRA(r=6, seed=9, initial=0.2), llama_spec), llama_spec)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    options = {"r": 6, "projection_prng_key": 9, "d_initial": 0.2, "save_projection": False}
    assert written.items() >= options.items()
    assert config(**options).to_dict().items() >= options.items()
