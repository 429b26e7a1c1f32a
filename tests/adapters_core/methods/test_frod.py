"""FRoD against PEFT's own layers and code, its defining formula, and files that nobody should take.

The form without V is held to the digest of V; what PEFT computes here has those very bits, since
both run on one thread of one machine.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import FrodConfig, PeftModel, get_peft_model
from peft.tuners.frod.layer import Linear as FrodLinear
from safetensors.torch import save_file
from torch import Tensor, nn

from adapters_core.base.spec import BaseSpec, BaseWeights, spec_of, weight_of, weights_of
from adapters_core.contract.method import Method, Shape
from adapters_core.errors import InvalidAdapter, NonFinite
from adapters_core.format.read import Adapter, read_adapter
from adapters_core.format.write import write_adapter
from adapters_core.frod.canonical import canonical, factors
from adapters_core.frod.joint import Joint
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.methods import FRoD
from made import CPU, TOY_PATH, random_adapter, toy_bases
from tiny_bases import TINY, change_config, change_tensors, relative, tiny_llama, without_warnings

LAMBDA, VALUES = "frod_lambda_l", "frod_lambda_s_values"
QUERY = "self_attn_q_proj"
ENDS = {
    "llama": ["q_proj", "v_proj"],
    "qwen3": ["k_proj", "down_proj", "o_proj"],
    "gpt2": ["c_attn", "c_proj"],
}
each_base = pytest.mark.parametrize("base", TINY)


def saved_by_peft(model: nn.Module, folder: Path, **changes: Any) -> PeftModel:
    """Return PEFT's model over a copy of `model` with lambda and S drawn; save it."""
    fixed = {"sparse_rate": 0.02, "projection_prng_key": 3, "task_type": "CAUSAL_LM"}
    config = FrodConfig(**(fixed | {"progressbar": False} | changes))
    with without_warnings():
        peft_model = get_peft_model(copy.deepcopy(model), config)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in peft_model.named_parameters():
        if LAMBDA in name or VALUES in name:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data = parameter.data + 0.3 * noise
    with without_warnings():
        peft_model.save_pretrained(str(folder))
    return peft_model.eval()


def dense(module: FrodLinear) -> Tensor:
    """Return PEFT's own delta, as `[out, in]`."""
    with without_warnings():  # torch's, about sparse tensors
        delta = module.get_delta_weight("default").detach()
    return delta.T if module.is_target_conv_1d_layer else delta


def read_on(folder: Path, model: nn.Module) -> tuple[Adapter, BasisCache]:
    """Return the folder's adapter as the upload route reads it, and the bases it then has."""
    spec = spec_of(model, "tiny")
    bases = BasisCache(CPU, weights_of(model, spec))
    file, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    adapter = read_adapter(file, config.read_bytes(), spec)
    bases.check(adapter.methods, adapter.layers)
    return adapter, bases


def deltas_of(adapter: Adapter, bases: BasisCache, model: nn.Module) -> dict[str, Tensor]:
    shapes = spec_of(model, "tiny").targets
    return {
        target: method.delta(
            adapter.layers[target],
            shapes[target],
            bases.get(method, shapes[target], target, adapter.layers[target]),
        )
        for target, method in adapter.methods.items()
    }


def written_small(
    model: nn.Module, folder: Path, ends: tuple[str, ...] = ("q_proj", "v_proj"), **options: Any
) -> tuple[dict[str, Method], dict[str, dict[str, Tensor]]]:
    """Write a drawn adapter in the small form, or what `options` say."""
    spec = spec_of(model, "tiny")
    shapes = {target: shape for target, shape in spec.targets.items() if target.endswith(ends)}
    bases = BasisCache(CPU, weights_of(model, spec))
    methods, layers = random_adapter(FRoD(**options), shapes, bases, 1)
    write_adapter(folder, methods, layers, spec)
    return methods, layers


def exact(module: FrodLinear) -> Tensor:
    """Return U (S + diag(lambda)) V^T - W in float64 from PEFT's own tensors, as `[out, in]`."""
    u, v = module.frod_U["default"].double(), module.frod_V["default"].double()
    core = torch.diag(module.frod_lambda_l["default"].detach().double())
    rows, cols = module.frod_s_indices["default"]
    values = module.frod_lambda_s_values["default"].detach().double()
    core.index_put_((rows, cols), values, accumulate=True)
    return u @ core @ v.T - weight_of(module.get_base_layer()).detach().double()


def test_delta_is_the_defining_formula() -> None:
    """W + delta is U (S + diag(lambda)) V^T, summed cell by cell from the file's numbers."""
    shape, bases = Shape(4, 6), toy_bases({TOY_PATH: Shape(4, 6)})
    methods, layers = random_adapter(FRoD(sparse_rate=0.2, saved=True), {TOY_PATH: shape}, bases, 0)
    layer, basis = layers[TOY_PATH], bases.get(methods[TOY_PATH], shape, TOY_PATH)
    weight = bases._weights.weight(TOY_PATH).double()
    v = layer["frod_V"].double()
    scaled = weight @ torch.linalg.inv(v).T
    u = scaled / scaled.norm(dim=0)
    true = -weight
    for a in range(6):
        true = true + layer[LAMBDA][a].double() * torch.outer(u[:, a], v[:, a])
    rows, cols = layer["frod_s_indices"].tolist()
    assert len(rows) == 7
    for row, col, value in zip(rows, cols, layer[VALUES].tolist(), strict=True):
        true = true + value * torch.outer(u[:, row], v[:, col])
    assert relative(methods[TOY_PATH].delta(layer, shape, basis), true) < 1e-5


# What PEFT saves with V


@each_base
@pytest.mark.parametrize("rate", [0.02, 1e-4])
def test_what_peft_saves_has_pefts_deltas_and_logits(
    base: str, rate: float, tmp_path: Path
) -> None:
    model = TINY[base]()
    theirs = saved_by_peft(model, tmp_path, target_modules=ENDS[base], sparse_rate=rate)
    adapter, bases = read_on(tmp_path, model)
    modules = dict(theirs.base_model.model.named_modules())
    assert set(adapter.methods) == {n for n, m in modules.items() if isinstance(m, FrodLinear)}
    for target, delta in deltas_of(adapter, bases, model).items():
        module = modules[target]
        assert relative(delta, exact(module)) <= 1e-6
        assert relative(delta, dense(module)) <= 1e-6
        with torch.no_grad():
            weight_of(model.get_submodule(target)).add_(delta)
    tokens = torch.arange(20)[None]
    with torch.inference_mode(), without_warnings():
        assert torch.allclose(model(tokens).logits, theirs(tokens).logits, atol=1e-5)


@each_base
def test_all_linear_layers_too(base: str, tmp_path: Path) -> None:
    model = TINY[base]()
    theirs = saved_by_peft(model, tmp_path, target_modules="all-linear").base_model.model
    adapter, bases = read_on(tmp_path, model)
    assert set(adapter.methods) == set(spec_of(model, "tiny").targets)
    for target, delta in deltas_of(adapter, bases, model).items():
        assert relative(delta, exact(theirs.get_submodule(target))) <= 1e-6


def test_a_fresh_adapter_of_pefts_changes_nothing(tmp_path: Path) -> None:
    model = tiny_llama()
    config = FrodConfig(target_modules=["q_proj"], progressbar=False, task_type="CAUSAL_LM")
    with without_warnings():
        get_peft_model(copy.deepcopy(model), config).save_pretrained(str(tmp_path))
    adapter, bases = read_on(tmp_path, model)
    assert not any(delta.any() for delta in deltas_of(adapter, bases, model).values())


def test_a_position_that_stands_twice_gets_the_sum(tmp_path: Path) -> None:
    model = tiny_llama()
    saved_by_peft(model, tmp_path, target_modules=["q_proj"])
    key = f"base_model.frod_s_indices.{QUERY}"

    def double(tensors: dict[str, Tensor]) -> None:
        tensors[key][:, 1] = tensors[key][:, 0]

    change_tensors(tmp_path, double)
    with without_warnings():
        theirs = PeftModel.from_pretrained(copy.deepcopy(model), str(tmp_path)).base_model.model
    adapter, bases = read_on(tmp_path, model)
    for target, delta in deltas_of(adapter, bases, model).items():
        assert relative(delta, exact(theirs.get_submodule(target))) <= 1e-6


def test_adapters_of_one_v_and_one_choice_of_positions_share_everything(tmp_path: Path) -> None:
    model = tiny_llama()
    saved_by_peft(model, tmp_path / "saved", target_modules=["q_proj"])
    written_small(model, tmp_path / "small", ("q_proj",), sparse_rate=0.02, seed=3)
    written_small(model, tmp_path / "other", ("q_proj",), sparse_rate=0.02, seed=4)
    bases, target, shape = read_on(tmp_path / "saved", model)[1], TOY_PATH, Shape(96, 96)
    got = {}
    for name in ("saved", "small", "other"):
        adapter = read_on(tmp_path / name, model)[0]
        method = adapter.methods[target]
        got[name] = method, bases.get(method, shape, target, adapter.layers[target])
    (saved, small, other) = got.values()
    assert saved[0].signature(shape) == small[0].signature(shape) != other[0].signature(shape)
    assert saved[1] is small[1]
    assert saved[1].v is other[1].v  # one V for all layers and adapters
    assert saved[1].u is other[1].u
    second = TOY_PATH.replace(".0.", ".1.")
    assert bases.get(other[0], shape, second).v is other[1].v


@pytest.mark.parametrize(
    ("name", "position", "value", "says"),
    [
        ("s_indices", (0, 5), 96, "position 96 is not in 0..95"),
        ("s_indices", (1, 5), -1, "position -1 is not in 0..95"),
        ("s_indices", (1, 0), 2**40, "is not in 0..95"),
        ("s_indices", (slice(None), 0), 7, "7, 7 is on the diagonal"),
        ("s_size", 0, 95, r"\[95, 96\], not \[96, 96\]"),
        ("V", slice(None), 0.0, "singular"),
        ("V", (slice(None), 3), 0.0, "singular"),
    ],
)
def test_a_shared_tensor_with_a_wrong_value_is_refused(
    name: str, position: Any, value: float, says: str, tmp_path: Path
) -> None:
    model = tiny_llama()
    saved_by_peft(model, tmp_path, target_modules=["q_proj"])
    key = f"base_model.frod_{name}.{QUERY}"
    change_tensors(tmp_path, lambda tensors: tensors[key].__setitem__(position, value))
    with pytest.raises(InvalidAdapter, match=says) as caught:
        read_on(tmp_path, model)
    assert caught.value.param == key


def test_a_v_that_is_not_finite_missing_or_of_another_width_is_refused(tmp_path: Path) -> None:
    model, key = tiny_llama(), f"base_model.frod_V.{QUERY}"
    saved_by_peft(model, tmp_path, target_modules=["q_proj"])
    good = (tmp_path / "adapter_model.safetensors").read_bytes()
    for change, error in (
        (lambda tensors: tensors[key][3].fill_(torch.nan), NonFinite),
        (lambda tensors: tensors.pop(key), InvalidAdapter),
        (lambda tensors: tensors.update({key: tensors[key][:, 1:].contiguous()}), InvalidAdapter),
    ):
        (tmp_path / "adapter_model.safetensors").write_bytes(good)
        change_tensors(tmp_path, change)
        with pytest.raises(error) as caught:
            read_on(tmp_path, model)
        assert caught.value.param == key


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sparse_rate", 1.5),
        ("sparse_rate", -0.1),
        ("sparse_rate", "much"),
        ("projection_prng_key", 2**64),
        ("projection_prng_key", 1.5),
        ("save_projection", "yes"),
        ("regularization_alpha", None),
        ("bias", "all"),
    ],
)
def test_a_bad_field_is_refused_by_name(
    field: str, value: object, tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    saved_by_peft(tiny_llama(), tmp_path, target_modules=["q_proj"])
    change_config(tmp_path, {field: value})
    if value is None:
        assert read(tmp_path)  # the default
        return
    with pytest.raises(InvalidAdapter) as caught:
        read(tmp_path)
    assert caught.value.param == field


# Without V in the file


def test_pefts_file_without_v_is_refused_by_name(
    tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    saved_by_peft(tiny_llama(), tmp_path, target_modules=["q_proj"], save_projection=False)
    with pytest.raises(InvalidAdapter, match="save_projection=True") as caught:
        read(tmp_path)
    assert caught.value.param == "save_projection"


def test_a_file_with_v_must_say_so(tmp_path: Path, read: Callable[..., Adapter]) -> None:
    saved_by_peft(tiny_llama(), tmp_path, target_modules=["q_proj"])
    change_config(tmp_path, {"save_projection": False})
    with pytest.raises(InvalidAdapter, match="set it to true") as caught:
        read(tmp_path)
    assert caught.value.param == "save_projection"


@each_base
@pytest.mark.parametrize("options", [{"sparse_rate": 1e-4}, {"sparse_rate": 0.03, "seed": 5}])
def test_peft_has_our_deltas_of_the_small_form(
    base: str, options: dict[str, Any], tmp_path: Path
) -> None:
    """On one thread it computes the same V, since all layers of each category are adapted."""
    model = TINY[base]()
    written_small(model, tmp_path, tuple(ENDS[base]), **options)
    with without_warnings():
        theirs = PeftModel.from_pretrained(copy.deepcopy(model), str(tmp_path)).base_model.model
    adapter, bases = read_on(tmp_path, model)
    for target, delta in deltas_of(adapter, bases, model).items():
        assert relative(delta, exact(theirs.get_submodule(target))) <= 1e-6


def test_a_rate_of_zero_leaves_lambda_alone(tmp_path: Path) -> None:
    model = tiny_llama()
    written_small(model, tmp_path, sparse_rate=0.0)
    adapter, bases = read_on(tmp_path, model)
    assert set(adapter.layers[TOY_PATH]) == {LAMBDA, "frod_digest"}
    assert all(delta.any() for delta in deltas_of(adapter, bases, model).values())


def test_a_changed_base_is_refused_with_both_digests(tmp_path: Path) -> None:
    """The fingerprint reads samples; the digest of V tells a base that they do not."""
    model = tiny_llama()
    written_small(model, tmp_path)
    made = read_on(tmp_path, model)[0].methods[TOY_PATH].v_digest
    spec = spec_of(model, "tiny")
    with torch.no_grad():
        weight_of(model.get_submodule(TOY_PATH))[0, 0] += 0.01
    here = canonical(weights_of(model, spec), QUERY).digest
    adapter = read_adapter(
        tmp_path / "adapter_model.safetensors",
        (tmp_path / "adapter_config.json").read_bytes(),
        spec,
    )
    with pytest.raises(InvalidAdapter, match=made) as caught:
        BasisCache(CPU, weights_of(model, spec)).check(adapter.methods, adapter.layers)
    assert here in caught.value.message
    assert here != made


@pytest.mark.parametrize(("row", "says"), [(0, "trained on a V of"), (1, "trained on positions")])
def test_a_wrong_digest_is_refused(row: int, says: str, tmp_path: Path) -> None:
    model, key = tiny_llama(), f"base_model.frod_digest.{QUERY}"
    written_small(model, tmp_path, ("q_proj",))
    change_tensors(tmp_path, lambda tensors: tensors[key][row].add_(1))
    with pytest.raises(InvalidAdapter, match=says) as caught:
        read_on(tmp_path, model)
    assert caught.value.param == key


def test_a_digest_of_other_numbers_than_bytes_is_refused(
    tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    key = f"base_model.frod_digest.{QUERY}"
    written_small(tiny_llama(), tmp_path, ("q_proj",))
    change_tensors(tmp_path, lambda tensors: tensors.update({key: tensors[key].long() + 1000}))
    with pytest.raises(InvalidAdapter, match="not uint8") as caught:
        read(tmp_path)
    assert caught.value.param == key


def test_another_regularisation_needs_v_in_the_file(
    tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    written_small(tiny_llama(), tmp_path, ("q_proj",))
    change_config(tmp_path, {"regularization_alpha": 0.1})
    with pytest.raises(InvalidAdapter, match=r"regularization_alpha = 0\.1") as caught:
        read(tmp_path)
    assert caught.value.param == "regularization_alpha"


def small_file(folder: Path, targets: dict[str, Shape], config: dict[str, Any]) -> BaseSpec:
    """Write a small file for one layer of a base that exists only as a spec."""
    spec = BaseSpec("huge", "sha256:huge", targets)
    target, shape = next(iter(targets.items()))
    methods = FRoD(sparse_rate=0.0).of_layers({target: shape})
    digest = torch.zeros(2, 32, dtype=torch.uint8)
    write_adapter(
        folder, methods, {target: {LAMBDA: torch.ones(shape.in_), "frod_digest": digest}}, spec
    )
    change_config(folder, config)
    return spec


@pytest.mark.parametrize(
    ("widths", "config", "says"),
    [
        ([11008] * 32, {}, "would cost"),
        ([500, 501], {}, r"widths \[500, 501\]"),
        ([500] * 40000, {}, "would cost"),
        ([16000], {"sparse_rate": 1e-9}, "is missing"),
        ([500, 500], {"sparse_rate": 1.0}, "is missing"),
    ],
)
def test_a_small_file_cannot_ask_for_more_than_its_caps(
    widths: list[int], config: dict[str, Any], says: str, tmp_path: Path
) -> None:
    """All is refused from header and config; the base here has no weights to compute with."""
    targets = {f"model.layers.{i}.mlp.down_proj": Shape(8, w) for i, w in enumerate(widths)}
    spec = small_file(tmp_path, targets, config)
    with pytest.raises(InvalidAdapter, match=says):
        read_adapter(
            tmp_path / "adapter_model.safetensors",
            (tmp_path / "adapter_config.json").read_bytes(),
            spec,
        )


def test_the_canonical_basis_is_computed_once_for_a_base(tmp_path: Path) -> None:
    """Kept on disk; a wrong digest costs neither it nor any layer's factors again."""
    model = tiny_llama()
    written_small(model, tmp_path / "adapter", ("q_proj",))
    spec, told = spec_of(model, "tiny"), []

    def weights() -> BaseWeights:
        return weights_of(model, spec, tmp_path, report=lambda *what: told.append(what))

    first = canonical(weights(), QUERY)
    assert [name for name, _ in told] == [f"frod-{QUERY}"] * len(told)
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    told.clear()
    again = weights()
    assert torch.equal(canonical(again, QUERY).v, first.v)
    key = f"base_model.frod_digest.{QUERY}"
    change_tensors(tmp_path / "adapter", lambda tensors: tensors[key][0].add_(1))
    adapter = read_adapter(
        tmp_path / "adapter" / "adapter_model.safetensors",
        (tmp_path / "adapter" / "adapter_config.json").read_bytes(),
        spec,
    )
    with pytest.raises(InvalidAdapter, match=first.digest):
        BasisCache(CPU, again).check(adapter.methods, adapter.layers)
    assert not told


def test_kept_factors_are_those_of_each_layer_alone(tmp_path: Path) -> None:
    model = tiny_llama()
    weights = weights_of(model, spec_of(model, "tiny"), tmp_path)
    kept = canonical(weights, QUERY)
    assert len(kept.own) == 2
    for path, own in kept.own.items():
        alone = factors(weights, path, Joint(kept.v, kept.digest), CPU, torch.float32)
        assert torch.equal(own.u, alone.u)
        assert torch.equal(own.lambda0, alone.lambda0)


def test_a_v_that_an_earlier_version_kept_stays_the_bases_own(tmp_path: Path) -> None:
    """Adapters were trained on it, though another V may be made of the same weights."""
    model = tiny_llama()
    spec = spec_of(model, "tiny")
    v = canonical(weights_of(model, spec), QUERY).v.flip(1).contiguous()
    folder = tmp_path / spec.fingerprint.removeprefix("sha256:")[:32]
    folder.mkdir()
    save_file({"tensor": v}, folder / f"frod-V-{QUERY}.safetensors")
    assert torch.equal(canonical(weights_of(model, spec, tmp_path), QUERY).v, v)
