"""DoRA against the plain formula and PEFT's own files."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor

from adapters_core.base.spec import BaseSpec, weights_of
from adapters_core.contract.layer import Site
from adapters_core.contract.method import Rows, Shape
from adapters_core.errors import InvalidAdapter, NoEffect
from adapters_core.format.read import Adapter
from adapters_core.format.write import write_adapter
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import inject
from adapters_core.layers.training_plan import TrainingPlan
from adapters_core.methods.dora import DoRA, GoldenBasis
from adapters_core.methods.lora import LoRA
from beside_peft import IDS, BesidePeft, saved_by_peft
from made import TOY_PATH, random_adapter, toy_bases
from tiny_bases import change_config, change_tensors, relative, tiny_llama, without_warnings

CPU = torch.device("cpu")
LM = {"task_type": "CAUSAL_LM"}
QUERY = "base_model.model.model.layers.0.self_attn.q_proj."
MAGNITUDE = "lora_magnitude_vector"
Read = Callable[..., Adapter]


def config(**options: Any) -> LoraConfig:
    plain = {"target_modules": ["q_proj", "v_proj"], "r": 3, "use_dora": True}
    return LoraConfig(**(plain | options | LM))


def saved(folder: Path, **options: Any) -> PeftModel:
    return saved_by_peft(tiny_llama(), config(**options), folder, MAGNITUDE, 0.2)


def toy(method: DoRA, shape: Shape, seed: int = 1) -> tuple[dict[str, Tensor], GoldenBasis]:
    bases = toy_bases({TOY_PATH: shape})
    _, layers = random_adapter(method, {TOY_PATH: shape}, bases, seed)
    return layers[TOY_PATH], bases.get(method, shape, TOY_PATH)


def test_delta_is_the_plain_formula() -> None:
    shape, method = Shape(4, 6), DoRA(r=2, alpha=6.0)
    layer, basis = toy(method, shape)
    a, b = layer["lora_A.weight"].tolist(), layer["lora_B.weight"].tolist()
    golden, m = basis.weight.tolist(), layer[MAGNITUDE].tolist()
    true = torch.zeros(4, 6, dtype=torch.float64)
    for p in range(4):
        turned = [golden[p][q] + 3.0 * sum(b[p][k] * a[k][q] for k in range(2)) for q in range(6)]
        length = math.sqrt(sum(value * value for value in turned))
        for q in range(6):
            true[p, q] = m[p] * turned[q] / length - golden[p][q]
    assert relative(method.delta(layer, shape, basis), true) < 1e-6
    cells = torch.arange(24)
    exact = method.cells(layer, shape, cells // 6, cells % 6, basis).view(4, 6)
    assert relative(exact, true) < 1e-14


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {}),
        ("llama", {"target_modules": "all-linear", "r": 2, "lora_alpha": 5}),
        ("llama", {"use_rslora": True, "r": 4, "lora_alpha": 3}),
        (
            "llama",
            {
                "target_modules": ["q_proj", "k_proj", "down_proj"],
                "rank_pattern": {"layers.0.self_attn.q_proj": 2, "model.layers.1.mlp.down_proj": 5},
                "alpha_pattern": {"k_proj": 3, r"layers\.1\..*": 9},
            },
        ),
        ("llama", {"layers_to_transform": [1], "target_modules": ["o_proj"]}),
        ("gpt2", {"target_modules": ["c_attn", "mlp.c_proj"], "fan_in_fan_out": True}),
    ],
    ids=["gqa", "all-linear", "rslora", "patterns", "one-layer", "gpt2"],
)
def test_deltas_and_logits_are_pefts(
    kind: str, options: dict[str, Any], tmp_path: Path, read: Read
) -> None:
    both = BesidePeft(kind, config(**options), tmp_path, read, MAGNITUDE, 0.2)
    both.check()
    assert both.adapter.description.method == "dora"


def test_lora_and_dora_are_told_apart_by_the_config(tmp_path: Path, read: Read) -> None:
    saved(tmp_path / "dora")
    saved_by_peft(tiny_llama(), config(use_dora=False), tmp_path / "lora", MAGNITUDE)
    assert {type(method) for method in read(tmp_path / "dora").methods.values()} == {DoRA}
    assert {type(method) for method in read(tmp_path / "lora").methods.values()} == {LoRA}
    change_config(tmp_path / "dora", {"use_dora": False})
    with pytest.raises(InvalidAdapter) as caught:
        read(tmp_path / "dora")
    assert caught.value.param == QUERY + MAGNITUDE
    change_config(tmp_path / "lora", {"use_dora": True})
    with pytest.raises(InvalidAdapter, match="missing") as caught:
        read(tmp_path / "lora")
    assert caught.value.param == QUERY + MAGNITUDE


def test_peft_gives_what_we_wrote_the_same_logits(
    llama_spec: BaseSpec, tmp_path: Path, read: Read
) -> None:
    shapes = {t: s for t, s in llama_spec.targets.items() if t.endswith(("q_proj", "down_proj"))}
    bases = BasisCache(CPU, weights_of(tiny_llama(), llama_spec))
    method = DoRA(r=4, alpha=3.0, rslora=True)
    methods, layers = random_adapter(method, shapes, bases, 1, size=0.1)
    write_adapter(tmp_path, methods, layers, llama_spec)
    assert dict(read(tmp_path).methods) == methods
    with without_warnings():
        theirs = PeftModel.from_pretrained(tiny_llama(), str(tmp_path)).eval()
    ours = tiny_llama()
    with torch.no_grad():
        plain = ours(IDS).logits
        for target, layer in layers.items():
            basis = bases.get(methods[target], shapes[target], target)
            delta = methods[target].delta(layer, shapes[target], basis)
            ours.get_submodule(target).weight += delta
        assert (theirs(IDS).logits - ours(IDS).logits).abs().max() <= 1e-4
        assert (ours(IDS).logits - plain).abs().max() > 1e-2


def test_fresh_adapter_of_a_conv1d_changes_nothing_to_the_bit() -> None:
    golden = torch.randn(77, 45, generator=torch.Generator().manual_seed(0)).T
    basis = GoldenBasis(golden, torch.float32)
    method, shape = DoRA(r=3), Shape(45, 77)
    fresh = method.init(shape, torch.Generator().manual_seed(0), basis)
    assert not method.delta(fresh, shape, basis).any()
    assert not method.pack(fresh, shape, basis)[-45:].any()


def test_magnitude_alone_has_its_length() -> None:
    shape, method = Shape(5, 7), DoRA(r=2)
    layer, basis = toy(method, shape)
    merged = basis.weight + method.delta(layer, shape, basis)
    assert torch.allclose(merged.norm(dim=1), layer[MAGNITUDE].abs(), rtol=1e-5)


def test_row_without_length_stays_zero() -> None:
    shape, method = Shape(5, 7), DoRA(r=2)
    layer, basis = toy(method, shape)
    weight = basis.weight.clone()
    weight[2], layer["lora_B.weight"][2] = 0, 0
    basis = GoldenBasis(weight, torch.float32)
    delta = method.delta(layer, shape, basis)
    assert torch.isfinite(delta).all()
    assert not delta[2].any()
    assert torch.isfinite(method.pack(layer, shape, basis)).all()
    moved = {name: tensor.requires_grad_() for name, tensor in layer.items()}
    for delta in (method.delta(moved, shape, basis), method.training_delta(moved, shape, basis)):
        delta.sum().backward()
    assert all(torch.isfinite(tensor.grad).all() for tensor in moved.values())


def test_training_takes_the_length_for_a_constant_as_peft_does(llama_spec: BaseSpec) -> None:
    torch.manual_seed(1)
    with without_warnings():
        theirs = get_peft_model(tiny_llama(), config(target_modules=["v_proj"]))
    model = tiny_llama()
    bases = BasisCache(CPU, weights_of(model, llama_spec))
    shapes = {t: s for t, s in llama_spec.targets.items() if t.endswith("v_proj")}
    plan = TrainingPlan(DoRA(r=3), shapes, bases, torch.Generator().manual_seed(2))
    named = dict(theirs.base_model.model.named_parameters())
    pairs = []
    for target, layer in plan.layers.items():
        for name, ending in (
            ("lora_A.weight", "lora_A.default.weight"),
            ("lora_B.weight", "lora_B.default.weight"),
            (MAGNITUDE, f"{MAGNITUDE}.default.weight"),
        ):
            moved = layer[name].data + 0.1
            layer[name].data, their = moved, named[f"{target}.{ending}"]
            their.data = moved.clone()
            pairs.append((layer[name], their))
    inject(model).switch.plan = plan
    for one in (model, theirs):
        one(IDS).logits.square().sum().backward()
    for ours, their in pairs:
        assert ours.grad is not None
        assert relative(ours.grad, their.grad) <= 1e-4


def test_rank_chooses_the_bank_and_scale_does_not() -> None:
    shape = Shape(4, 6)
    assert DoRA(r=2).signature(shape) != DoRA(r=3).signature(shape)
    assert DoRA(r=2).signature(shape) == DoRA(r=2, alpha=1.0, rslora=True).signature(shape)
    assert DoRA(r=2).signature(shape) != LoRA(r=2).signature(shape)


def test_bank_holds_the_base_weight_by_reference(llama_spec: BaseSpec) -> None:
    model = tiny_llama()
    weights = weights_of(model, llama_spec)
    target = "model.layers.1.self_attn.v_proj"
    shape = llama_spec.targets[target]
    basis = DoRA(r=2).basis(shape, CPU, torch.float32, Site(target, weights, {}))
    assert basis.weight.data_ptr() == model.get_submodule(target).weight.data_ptr()
    bases = BasisCache(CPU, weights)
    bases.get(DoRA(r=2), shape, target)
    assert bases._used_bytes == 0


@pytest.mark.parametrize("r", [1, 3, 5])
def test_row_has_its_bits_in_any_batch(r: int) -> None:
    shapes = {TOY_PATH: Shape(45, 77)}
    bases = toy_bases(shapes)
    made = [random_adapter(DoRA(r=r), shapes, bases, seed) for seed in range(2)]
    bank = Bank(Layout.of(made[0][0], shapes), bases, slots=2, layers=made[0][1])
    slots = torch.tensor([bank.add(bank.pack(*one)) for one in made])
    x = torch.randn(19, 77, generator=torch.Generator().manual_seed(3))
    picked = slots[torch.randint(2, (19,), generator=torch.Generator().manual_seed(4))]
    whole = bank.apply(TOY_PATH, x, Rows(picked, 19))
    assert whole is not None
    for start, stop in [(0, 1), (18, 19), (1, 2), (0, 5), (7, 16), (1, 19)]:
        part = bank.apply(TOY_PATH, x[start:stop], Rows(picked[start:stop], stop - start))
        assert part is not None
        assert torch.equal(part, whole[start:stop])


def test_half_precision_base_is_packed_in_float32() -> None:
    shape, method = Shape(45, 77), DoRA(r=3)
    layer, basis = toy(method, shape)
    half = GoldenBasis(basis.weight.bfloat16(), torch.float32)
    full = GoldenBasis(half.weight.float(), torch.float32)
    assert torch.equal(method.delta(layer, shape, half), method.delta(layer, shape, full))
    assert torch.equal(method.pack(layer, shape, half), method.pack(layer, shape, full))


def test_what_peft_has_not_trained_has_no_effect(tmp_path: Path, read: Read) -> None:
    with without_warnings():
        get_peft_model(tiny_llama(), config()).save_pretrained(str(tmp_path))
    with pytest.raises(NoEffect):
        read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"use_dora": "yes"}, "use_dora"),
        ({"use_dora": 1}, "use_dora"),
        ({"r": 0}, "r"),
        ({"r": 2.5}, "r"),
        ({"lora_alpha": math.inf}, "lora_alpha"),
        ({"lora_alpha": None, "use_rslora": 3}, "use_rslora"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"bias": "all"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
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


@pytest.mark.parametrize("name", [MAGNITUDE, "lora_A.weight", "lora_B.weight"])
@pytest.mark.parametrize("fault", ["longer", "integers", "NaN", "missing"])
def test_bad_tensors_are_refused_by_name(name: str, fault: str, tmp_path: Path, read: Read) -> None:
    saved(tmp_path)

    def change(tensors: dict[str, Tensor]) -> None:
        old = tensors.pop(QUERY + name)
        spoilt = {
            "longer": torch.cat([old, old]),
            "integers": old.int(),
            "NaN": torch.full_like(old, math.nan),
        }
        if fault != "missing":
            tensors[QUERY + name] = spoilt[fault]

    change_tensors(tmp_path, change)
    with pytest.raises(InvalidAdapter) as caught:
        read(tmp_path)
    assert caught.value.param == QUERY + name
