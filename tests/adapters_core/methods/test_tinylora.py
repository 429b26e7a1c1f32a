"""TinyLoRA against the plain product and PEFT's own files."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, TinyLoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor

from adapters_core.base.spec import BaseSpec, weights_of
from adapters_core.contract.method import Method, Rows, Segment, Shape
from adapters_core.errors import InvalidAdapter, NoEffect, UnusedTensors
from adapters_core.format.read import Adapter
from adapters_core.format.write import write_adapter
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.methods.tinylora import MAX_NUMBERS, TinyLoRA
from beside_peft import BesidePeft, saved_by_peft
from made import TOY_PATH, random_adapter, toy_bases
from tiny_bases import change_config, change_tensors, relative, tiny_llama, without_warnings

CPU = torch.device("cpu")
LM = {"task_type": "CAUSAL_LM"}
QUERY = "base_model.model.model.layers.0.self_attn.q_proj."
Read = Callable[..., Adapter]


def config(**options: Any) -> TinyLoraConfig:
    with without_warnings():
        return TinyLoraConfig(
            **({"target_modules": ["q_proj", "v_proj"], "r": 2, "u": 5} | options | LM)
        )


def saved(folder: Path, **options: Any) -> PeftModel:
    return saved_by_peft(tiny_llama(), config(**options), folder, "tinylora_v")


def llama_bases(spec: BaseSpec) -> BasisCache:
    return BasisCache(CPU, weights_of(tiny_llama(), spec))


def ours(
    method: TinyLoRA, spec: BaseSpec, seed: int = 0
) -> tuple[dict[str, Method], dict[str, dict[str, Tensor]]]:
    shapes = {t: s for t, s in spec.targets.items() if t.endswith(("q_proj", "v_proj"))}
    return random_adapter(method, shapes, llama_bases(spec), seed)


def test_delta_is_the_plain_product() -> None:
    shape = Shape(4, 6)
    methods, layers = random_adapter(
        TinyLoRA(r=2, u=3), {TOY_PATH: shape}, toy_bases({TOY_PATH: shape}), 1
    )
    method, layer = methods[TOY_PATH], layers[TOY_PATH]
    v, p, a, b = (layer[f"tinylora_{name}"].tolist() for name in "vPAB")
    true = torch.zeros(4, 6, dtype=torch.float64)
    for row in range(4):
        for col in range(6):
            for j in range(2):
                for k in range(2):
                    core = sum(v[i] * p[i][j][k] for i in range(3))
                    true[row, col] += b[row][j] * core * a[k][col]
    basis = toy_bases({TOY_PATH: shape}).get(method, shape, TOY_PATH, layer)
    assert relative(method.delta(layer, shape, basis), true) < 1e-6
    cells = torch.arange(24)
    exact = method.cells(layer, shape, cells // 6, cells % 6).view(4, 6)
    assert relative(exact, true) < 1e-14


@pytest.mark.parametrize("name", ["q_proj", "v_proj"])
def test_fresh_factors_are_the_truncated_svd(name: str, llama_spec: BaseSpec) -> None:
    target = f"model.layers.1.self_attn.{name}"
    shape, weight = llama_spec.targets[target], tiny_llama().get_submodule(target).weight.detach()
    method = TinyLoRA(r=7)
    basis = llama_bases(llama_spec).get(method, shape, target)
    fresh = method.init(shape, torch.Generator(), basis)
    down, up = fresh["tinylora_A"].double(), fresh["tinylora_B"].double()
    u, s, vh = torch.linalg.svd(weight.double(), full_matrices=False)
    assert relative(up @ down, u[:, :7] * s[:7] @ vh[:7]) < 1e-4  # singular values lie close
    assert torch.allclose(down @ down.T, torch.diag(s[:7]), atol=1e-5)
    assert torch.allclose(up.T @ up, torch.diag(s[:7]), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {}),
        ("llama", {"weight_tying": 1.0, "save_projection": False}),
        ("llama", {"weight_tying": 0.6, "target_modules": "all-linear", "r": 3}),
        ("llama", {"r": 40, "projection_seed": 7, "save_projection": False}),  # values are 32 wide
        ("llama", {"layers_to_transform": [1], "save_projection": False}),
        ("llama", {"target_modules": "all-linear", "weight_tying": 0.3, "save_projection": False}),
        ("gpt2", {"target_modules": ["c_attn", "mlp.c_proj"], "fan_in_fan_out": True}),
    ],
    ids=["plain", "tied", "all-tied", "above-width", "one-layer", "all-unsaved", "gpt2"],
)
def test_deltas_and_logits_are_pefts(
    kind: str, options: dict[str, Any], tmp_path: Path, read: Read
) -> None:
    BesidePeft(kind, config(**options), tmp_path, read, "tinylora_v").check()


@pytest.mark.parametrize("tying", [0.0, 0.1, 0.25, 0.5, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "k_proj", "v_proj"], "all-linear"])
def test_groups_are_pefts(tying: float, targets: Any, llama_spec: BaseSpec) -> None:
    with without_warnings():
        made = config(target_modules=targets, weight_tying=tying)
        theirs = get_peft_model(tiny_llama(), made).base_model.model
    keys = {
        target: module._tinylora_v_key["default"]
        for target, module in theirs.named_modules()
        if hasattr(module, "_tinylora_v_key")
    }
    shapes = {target: shape for target, shape in llama_spec.targets.items() if target in keys}
    methods = TinyLoRA(tying=tying).of_layers(shapes)
    assert {target: str(method.group) for target, method in methods.items()} == keys  # type: ignore[attr-defined]


def test_tied_layers_have_one_vector(tmp_path: Path, read: Read) -> None:
    saved(tmp_path, weight_tying=0.5)
    layers = list(read(tmp_path).layers.values())
    vectors = [layer["tinylora_v"] for layer in layers]
    assert vectors[0] is vectors[1]
    assert vectors[2] is vectors[3]
    assert not torch.equal(vectors[0], vectors[2])


def test_adapters_with_the_same_factors_share_a_bank_of_their_cores(
    llama_spec: BaseSpec, tmp_path: Path, read: Read
) -> None:
    one_folder, other_folder = tmp_path / "one", tmp_path / "other"
    saved(one_folder)
    saved(other_folder, u=9, projection_seed=3, weight_tying=1.0, save_projection=False)
    one, other = read(one_folder), read(other_folder)
    layouts = [Layout.of(adapter.methods, llama_spec.targets) for adapter in (one, other)]
    assert layouts[0].key == layouts[1].key
    assert layouts[0].width == 4 * 2 * 2  # four layers of r x r numbers
    change_tensors(other_folder, lambda tensors: tensors[QUERY + "tinylora_A"].mul_(-1))
    changed = Layout.of(read(other_folder).methods, llama_spec.targets)
    assert changed.key != layouts[0].key


@pytest.mark.parametrize("r", [1, 2, 3, 5, 8, 16, 23])
@pytest.mark.parametrize("shape", [Shape(45, 77), Shape(31, 29), Shape(96, 30)], ids=str)
def test_row_has_its_bits_wherever_it_stands(shape: Shape, r: int) -> None:
    shapes = {TOY_PATH: shape}
    bases = toy_bases(shapes)
    made = [random_adapter(TinyLoRA(r=r, u=4), shapes, bases, seed) for seed in range(2)]
    bank = Bank(Layout.of(made[0][0], shapes), bases, slots=2, layers=made[0][1])
    slots = torch.tensor([bank.add(bank.pack(*one)) for one in made])
    x = torch.randn(19, shape.in_, generator=torch.Generator().manual_seed(3))
    picked = slots[torch.randint(2, (19,), generator=torch.Generator().manual_seed(4))]
    decoded = bank.apply(TOY_PATH, x, Rows(picked, 19))
    prompt = bank.apply(TOY_PATH, x, Rows(slots[:1].expand(19), 0, (Segment(0, 19, 0),)))
    assert decoded is not None
    assert prompt is not None
    for start, stop in [(0, 1), (18, 19), (1, 2), (0, 5), (7, 16), (1, 19)]:
        part = bank.apply(TOY_PATH, x[start:stop], Rows(picked[start:stop], stop - start))
        assert part is not None
        assert torch.equal(part, decoded[start:stop])
        count = stop - start
        rows = Rows(slots[:1].expand(count), 0, (Segment(0, count, 0),))
        part = bank.apply(TOY_PATH, x[start:stop], rows)
        assert part is not None
        assert torch.equal(part, prompt[start:stop])


@pytest.mark.parametrize("save", [True, False])
def test_peft_gives_what_we_wrote_the_same_deltas(
    save: bool, llama_spec: BaseSpec, tmp_path: Path, read: Read
) -> None:
    method = TinyLoRA(r=3, u=4, tying=0.5, seed=11, save=save)
    methods, layers = ours(method, llama_spec)
    write_adapter(tmp_path, methods, layers, llama_spec)
    held = load_file(tmp_path / "adapter_model.safetensors")
    assert (QUERY + "tinylora_P" in held) == save
    assert {"base_model.tinylora_v.0", "base_model.tinylora_v.1"} <= set(held)
    read(tmp_path)
    with without_warnings():
        theirs = PeftModel.from_pretrained(tiny_llama(), str(tmp_path)).base_model.model
    bases = llama_bases(llama_spec)
    for target, layer in layers.items():
        shape = llama_spec.targets[target]
        delta = methods[target].delta(layer, shape, bases.get(methods[target], shape, target))
        their = theirs.get_submodule(target).get_delta_weight("default").detach()
        assert relative(delta, their) <= 1e-6


def test_digest_in_the_header_is_held_against_what_is_drawn(
    llama_spec: BaseSpec, tmp_path: Path, read: Read
) -> None:
    write_adapter(tmp_path, *ours(TinyLoRA(u=4, save=False), llama_spec), llama_spec)
    read(tmp_path)
    change_config(tmp_path, {"projection_seed": 8})  # as a machine that draws other numbers
    with pytest.raises(InvalidAdapter, match="gives other matrices here") as caught:
        read(tmp_path)
    assert caught.value.param == "projection_seed"


def test_zero_vectors_are_no_update(tmp_path: Path, read: Read) -> None:
    with without_warnings():
        get_peft_model(tiny_llama(), config()).save_pretrained(str(tmp_path))
    with pytest.raises(NoEffect):
        read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"r": 0}, "r"),
        ({"r": 2.5}, "r"),
        ({"u": 0}, "u"),
        ({"u": True}, "u"),
        ({"u": 10**4299}, "u"),
        ({"weight_tying": 1.5}, "weight_tying"),
        ({"weight_tying": -0.1}, "weight_tying"),
        ({"weight_tying": "half"}, "weight_tying"),
        ({"weight_tying": math.nan}, "weight_tying"),
        ({"projection_seed": -1}, "projection_seed"),
        ({"projection_seed": 2**32}, "projection_seed"),
        ({"save_projection": "yes"}, "save_projection"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"alpha": 2}, "alpha"),
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
def test_too_many_projection_numbers_are_refused_before_any_is_drawn(
    claims_digest: bool,
    llama_spec: BaseSpec,
    tmp_path: Path,
    read: Read,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_adapter(tmp_path, *ours(TinyLoRA(r=2, u=4, save=False), llama_spec), llama_spec)
    if not claims_digest:
        change_tensors(tmp_path, lambda tensors: None)  # rewritten without our header
    monkeypatch.setattr(torch, "normal", None)
    change_config(tmp_path, {"u": MAX_NUMBERS // 4 + 1})
    with pytest.raises(InvalidAdapter, match=f"at most {MAX_NUMBERS // 4} ") as caught:
        read(tmp_path)
    assert caught.value.param == "u"


def test_another_tying_than_the_files_is_refused_by_name(tmp_path: Path, read: Read) -> None:
    saved(tmp_path, weight_tying=0.5)
    change_config(tmp_path, {"weight_tying": 0.0})
    with pytest.raises(InvalidAdapter, match="missing") as caught:
        read(tmp_path)
    assert caught.value.param == "base_model.tinylora_v.2"
    change_config(tmp_path, {"weight_tying": 1.0})
    with pytest.raises(UnusedTensors) as unused:
        read(tmp_path)
    assert unused.value.param == "base_model.tinylora_v.1"


@pytest.mark.parametrize(
    "name",
    [QUERY + "tinylora_A", QUERY + "tinylora_B", QUERY + "tinylora_P", "base_model.tinylora_v.0"],
)
@pytest.mark.parametrize("fault", ["longer", "integers", "infinite", "missing"])
def test_bad_tensors_are_refused_by_name(name: str, fault: str, tmp_path: Path, read: Read) -> None:
    saved(tmp_path)

    def change(tensors: dict[str, Tensor]) -> None:
        old = tensors.pop(name)
        spoilt = {
            "longer": torch.cat([old, old]),
            "integers": old.int(),
            "infinite": torch.full_like(old, math.inf),
        }
        if fault != "missing":
            tensors[name] = spoilt[fault]

    change_tensors(tmp_path, change)
    with pytest.raises(InvalidAdapter) as caught:
        read(tmp_path)
    assert caught.value.param == name


def test_projections_that_the_config_denies_are_refused(tmp_path: Path, read: Read) -> None:
    saved(tmp_path)
    change_config(tmp_path, {"save_projection": False})
    with pytest.raises(UnusedTensors) as caught:
        read(tmp_path)
    assert caught.value.param == QUERY + "tinylora_P"
