"""CLoRA against the written-out sums, its packing as LoRA, SADE, and files that lie."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.method import Rows, Shape
from adapters_core.errors import AdapterError, InvalidAdapter, NoEffect
from adapters_core.format.read import Adapter
from adapters_core.format.write import WEIGHTS_NAME, write_adapter
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import inject
from adapters_core.layers.merge import materialise
from adapters_core.layers.training_plan import TrainingPlan
from adapters_core.methods import LoRA
from adapters_core.methods.clora import MAX_RANK, CLoRA, overlap
from made import random_adapter
from tiny_bases import change_config, change_tensors, random_layer, relative, tiny_llama

MAP, DOWN, UP = "clora_map", "clora_down", "clora_up"
CPU = torch.device("cpu")
FULL = CLoRA(r=2, num_spaces=2, scaling=-1.5)
DIAGONAL = CLoRA(r=2, num_spaces=2, diagonal=True, scaling=-1.5)


def written_out(layer: Mapping[str, Tensor], r: int, scaling: float) -> Tensor:
    """Return `scaling * sum_i Q_i A_i P_i` of a 4 x 6 layer, number by number."""
    maps, down, up = (layer[name].tolist() for name in (MAP, DOWN, UP))
    true = torch.zeros(4, 6, dtype=torch.float64)
    for i, each in enumerate(maps):
        full = each if isinstance(each[0], list) else torch.diag(torch.tensor(each)).tolist()
        for a in range(r):
            for b in range(r):
                for p in range(4):
                    for q in range(6):
                        true[p, q] += scaling * up[p][i * r + a] * full[a][b] * down[i * r + b][q]
    return true


@pytest.mark.parametrize("method", [FULL, DIAGONAL], ids=["full", "diagonal"])
def test_delta_is_the_written_out_sum(method: CLoRA) -> None:
    shape = Shape(4, 6)
    layer = random_layer(method, shape)
    true = written_out(layer, method.r, method.scaling)
    assert relative(method.delta(layer, shape, None), true) < 1e-6
    cells = torch.arange(24)
    exact = method.cells(layer, shape, cells // 6, cells % 6).view(4, 6)
    assert relative(exact, true) < 1e-14


def test_diagonal_maps_are_full_maps_with_zeros_beside() -> None:
    shape = Shape(45, 77)
    layer = random_layer(DIAGONAL, shape)
    full = layer | {MAP: torch.diag_embed(layer[MAP])}
    assert torch.equal(DIAGONAL.delta(layer, shape, None), FULL.delta(full, shape, None))


def test_rank_of_the_delta_is_that_of_all_spaces_together() -> None:
    method, shape = CLoRA(r=3, num_spaces=4), Shape(45, 77)
    delta = method.delta(random_layer(method, shape), shape, None)
    assert torch.linalg.matrix_rank(delta) == 12


def test_packed_is_a_lora_of_all_spaces() -> None:
    shape = Shape(45, 77)
    layer = random_layer(FULL, shape)
    blocks = FULL.scaling * torch.block_diag(*layer[MAP])
    lora = {"lora_A.weight": layer[DOWN], "lora_B.weight": layer[UP] @ blocks}
    want = LoRA(r=4, alpha=4.0).pack(lora, shape, None)
    assert torch.allclose(FULL.pack(layer, shape, None), want, rtol=1e-6, atol=1e-6)


def test_adapters_of_other_scaling_do_not_pack_for_each_other() -> None:
    """A bank packs with the methods that it was made for."""
    shape, weak, strong = Shape(8, 8), CLoRA(2, 2, scaling=1.0), CLoRA(2, 2, scaling=4.0)
    layer = random_layer(strong, shape)
    banks = {}
    for method in (weak, strong):
        layout = Layout.of({"": method}, {"": shape})
        banks.setdefault(layout.key, Bank(layout, BasisCache(CPU)))
    bank = banks[Layout.of({"": strong}, {"": shape}).key]
    slot = bank.add(bank.pack({"": strong}, {"": layer}))
    got = bank.apply("", torch.eye(8), Rows(torch.full((8,), slot), 8))
    assert got is not None
    assert relative(got.T, strong.delta(layer, shape, None)) < 1e-6


@pytest.mark.parametrize("zero", [MAP, DOWN, UP])
def test_any_factor_zero_is_no_update(zero: str) -> None:
    layer = random_layer(FULL, Shape(4, 6))
    assert not FULL.is_zero(layer)
    assert FULL.is_zero(layer | {zero: torch.zeros_like(layer[zero])})


def test_fresh_spaces_keep_the_variance_of_their_input() -> None:
    fresh = CLoRA(r=8, num_spaces=8).init(Shape(300, 400), torch.Generator().manual_seed(0))
    assert math.isclose(fresh[DOWN].square().sum(1).mean(), 1, rel_tol=0.02)
    assert math.isclose(fresh[UP].square().sum(1).mean(), 1, rel_tol=0.02)
    assert not fresh[MAP].any()


# SADE.


def slow_overlap(spaces: list[list[list[float]]]) -> float:
    """Return the sum over i < j of |P_i P_j^T|^2 / (|P_i|^2 |P_j|^2), number by number."""

    def dot(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    total = 0.0
    for j in range(len(spaces)):
        for i in range(j):
            shared = sum(dot(a, b) ** 2 for a in spaces[i] for b in spaces[j])
            sizes = [sum(dot(row, row) for row in spaces[k]) for k in (i, j)]
            total += shared / (sizes[0] * sizes[1])
    return total


def test_regulariser_is_the_double_loop_with_each_shared_tensor_once() -> None:
    method = CLoRA(r=2, num_spaces=3, sade_weight=0.25)
    shapes = {"a": Shape(9, 12), "b": Shape(9, 12), "c": Shape(7, 12)}
    _, layers = random_adapter(method, shapes, BasisCache(CPU), seed=1)
    assert layers["a"][DOWN] is layers["c"][DOWN]
    shared = [layers["a"][DOWN], layers["a"][UP].T, layers["c"][UP].T]
    want = sum(slow_overlap(tensor.double().view(3, 2, -1).tolist()) for tensor in shared)
    got = method.regulariser(layers)
    assert got is not None
    assert math.isclose(float(got), 0.25 * want, rel_tol=1e-5)


def test_gradient_of_the_overlap_is_the_difference() -> None:
    generator = torch.Generator().manual_seed(0)
    spaces = torch.randn(3, 2, 5, generator=generator, requires_grad=True)
    step = torch.randn(3, 2, 5, generator=generator)
    overlap(spaces).backward()
    assert spaces.grad is not None
    ends = [slow_overlap((spaces.detach().double() + h * step).tolist()) for h in (1e-5, -1e-5)]
    assert math.isclose((spaces.grad * step).sum(), (ends[0] - ends[1]) / 2e-5, rel_tol=1e-4)


def test_overlap_is_0_of_orthogonal_spaces_and_1_over_r_of_equal_ones() -> None:
    rows = torch.eye(6)
    assert overlap(rows.view(3, 2, 6)) == 0
    turned = torch.tensor([[0.6, 0.8], [-0.8, 0.6]]) @ rows[:2]
    assert math.isclose(overlap(torch.stack([rows[:2], 5 * turned])), 1 / 2, rel_tol=1e-6)


def test_overlap_of_a_zero_space_is_zero_and_so_is_its_gradient() -> None:
    spaces = torch.zeros(2, 2, 5, requires_grad=True)
    overlap(spaces).backward()
    assert overlap(spaces) == 0
    assert spaces.grad is not None
    assert not spaces.grad.any()


@pytest.mark.parametrize("method", [CLoRA(num_spaces=1), CLoRA(sade_weight=0.0)])
def test_no_regulariser_where_there_is_nothing_to_tell_apart(method: CLoRA) -> None:
    assert method.regulariser({"": random_layer(method, Shape(20, 20))}) is None


def two_linears() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 24)).requires_grad_(False)


def learn(method: CLoRA, steps: int = 80) -> tuple[float, float]:
    """Learn to be another model; return the first loss over the last, and the overlap left."""
    model = two_linears()
    teacher = nn.Sequential(nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 24)).requires_grad_(False)
    injection = inject(model)
    shapes = {path: linear.shape for path, linear in injection.linears.items()}
    plan = TrainingPlan(method, shapes, BasisCache(CPU), torch.Generator().manual_seed(1))
    injection.switch.plan = plan
    x = torch.randn(64, 24, generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.Adam(plan.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss, term = F.mse_loss(model(x), teacher(x)), plan.regulariser()
        losses.append(loss.item())
        (loss if term is None else loss + term).backward()
        optimizer.step()
    layer = plan.layers["0"]
    spaces = [layer[DOWN], layer[UP].T]
    shape = (method.num_spaces, method.r, -1)
    return losses[0] / losses[-1], float(sum(overlap(t.detach().reshape(shape)) for t in spaces))


def test_sade_makes_the_spaces_different_and_the_task_is_learned_all_the_same() -> None:
    plain_gain, plain = learn(CLoRA(r=2, num_spaces=4, sade_weight=0.0))
    gain, left = learn(CLoRA(r=2, num_spaces=4, sade_weight=0.01))
    assert left < plain / 5
    assert plain_gain > 5
    assert gain > 0.9 * plain_gain


def test_layers_of_a_width_train_one_set_of_spaces() -> None:
    shapes = {"a": Shape(24, 24), "b": Shape(24, 24), "c": Shape(8, 24)}
    plan = TrainingPlan(FULL, shapes, BasisCache(CPU), torch.Generator())
    assert plan.layers["a"][UP] is plan.layers["b"][UP]
    assert plan.layers["a"][DOWN] is plan.layers["c"][DOWN]
    assert sum(p.numel() for p in plan.parameters()) == 4 * (24 + 24 + 8) + 3 * 2 * 2 * 2


# Files.


def saved(method: CLoRA, spec: BaseSpec, folder: Path) -> dict[str, dict[str, Tensor]]:
    """Write an adapter of q and v of both layers."""
    targets = [t for t in spec.targets if t.endswith(("q_proj", "v_proj"))]
    shapes = {target: spec.targets[target] for target in targets}
    methods, layers = random_adapter(method, shapes, BasisCache(CPU), seed=1)
    write_adapter(folder, methods, layers, spec)
    return layers


def test_file_holds_the_spaces_once_a_width(llama_spec: BaseSpec, tmp_path: Path) -> None:
    saved(CLoRA(r=2, num_spaces=3), llama_spec, tmp_path)
    file = load_file(tmp_path / WEIGHTS_NAME)
    shapes = {key: tuple(tensor.shape) for key, tensor in file.items()}
    maps = {key for key in shapes if key.endswith(f".{MAP}")}
    assert {shapes[key] for key in maps} == {(3, 2, 2)}
    assert {key: shapes[key] for key in shapes.keys() - maps} == {
        "base_model.clora_down.96": (6, 96),
        "base_model.clora_up.96": (96, 6),
        "base_model.clora_up.32": (32, 6),
    }


def test_merged_weight_is_golden_and_delta(
    llama_spec: BaseSpec, tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    layers = saved(FULL, llama_spec, tmp_path)
    adapter, injection = read(tmp_path), inject(tiny_llama())
    merged = materialise(adapter.methods, adapter.layers, injection.linears, BasisCache(CPU))
    for target, layer in layers.items():
        delta = FULL.delta(layer, llama_spec.targets[target], None)
        want = injection.linears[target].golden() + delta
        assert relative(merged[target], want) < 1e-6


def test_all_maps_zero_is_refused_as_without_effect(
    llama_spec: BaseSpec, tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    saved(FULL, llama_spec, tmp_path)
    change_tensors(
        tmp_path, lambda tensors: [t.zero_() for key, t in tensors.items() if key.endswith(MAP)]
    )
    with pytest.raises(NoEffect):
        read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "param", "shown"),
    [
        ({"r": 0}, "r", "r = 0 is not in 1..1024"),
        ({"r": 1.5}, "r", "1.5"),
        ({"r": 10**30}, "r", "is not in 1..1024"),
        ({"num_spaces": -2}, "num_spaces", "num_spaces = -2"),
        ({"num_spaces": True}, "num_spaces", "True"),
        ({"num_spaces": 1024}, "num_spaces", "r * num_spaces = 2048: the ranks are at most 1024"),
        (
            {"num_spaces": 60},
            "num_spaces",
            "r * num_spaces = 120 on a layer of 96 x 96: at most 96",
        ),
        ({"diagonal": 1}, "diagonal", "diagonal = 1"),
        ({"scaling": 1e31}, "scaling", "scaling = 1e+31"),
        ({"scaling": math.nan}, "scaling", "scaling = nan"),
        ({"sade_weight": -0.5}, "sade_weight", "sade_weight = -0.5"),
        ({"lora_alpha": 8}, "lora_alpha", "lora_alpha = 8"),
    ],
)
def test_bad_config_is_refused_by_name_value_and_limit(
    changes: dict[str, object],
    param: str,
    shown: str,
    llama_spec: BaseSpec,
    tmp_path: Path,
    read: Callable[..., Adapter],
) -> None:
    saved(FULL, llama_spec, tmp_path)
    change_config(tmp_path, changes)
    with pytest.raises(InvalidAdapter) as caught:
        read(tmp_path)
    assert caught.value.param == param
    assert shown in caught.value.message


def dropped(key: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.pop(key)


def renamed(key: str, other: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.update({other: tensors[key].clone()})


def cut(key: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.update({key: tensors[key][:, :-1].contiguous()})


QUERY_MAP = f"base_model.model.model.layers.0.self_attn.q_proj.{MAP}"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        (dropped("base_model.clora_up.32"), "base_model.clora_up.32"),
        (dropped("base_model.clora_down.96"), "base_model.clora_down.96"),
        (renamed("base_model.clora_up.32", "base_model.clora_up.7"), "base_model.clora_up.7"),
        (cut("base_model.clora_down.96"), "base_model.clora_down.96"),
        (cut("base_model.clora_up.96"), "base_model.clora_up.96"),
        (cut(QUERY_MAP), QUERY_MAP),
        (lambda t: t[QUERY_MAP].fill_(math.nan), QUERY_MAP),
        (lambda t: t["base_model.clora_up.96"].fill_(math.inf), "base_model.clora_up.96"),
        (lambda t: t.update({QUERY_MAP: t[QUERY_MAP].int()}), QUERY_MAP),
        (renamed(QUERY_MAP, QUERY_MAP.replace(MAP, DOWN)), QUERY_MAP.replace(MAP, DOWN)),
    ],
)
def test_files_that_do_not_fit_are_refused_by_the_tensors_name(
    change: Callable[[dict[str, Tensor]], object],
    param: str,
    llama_spec: BaseSpec,
    tmp_path: Path,
    read: Callable[..., Adapter],
) -> None:
    saved(FULL, llama_spec, tmp_path)
    change_tensors(tmp_path, change)
    with pytest.raises(AdapterError) as caught:
        read(tmp_path)
    assert caught.value.param == param


def test_full_maps_are_no_diagonal_maps(
    llama_spec: BaseSpec, tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    saved(FULL, llama_spec, tmp_path)
    change_config(tmp_path, {"diagonal": True})
    with pytest.raises(InvalidAdapter, match=r"has shape \[2, 2, 2\], expected \[2, 2\]"):
        read(tmp_path)


def test_nothing_is_drawn_for_spaces_wider_than_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randn", lambda *_, **__: pytest.fail("drawn"))
    with pytest.raises(InvalidAdapter, match="at most 96"):
        TrainingPlan(CLoRA(97, 1), {"": Shape(96, 96)}, BasisCache(CPU), torch.Generator())


def test_ranks_up_to_the_limit_are_taken() -> None:
    assert CLoRA(MAX_RANK // 4, 4).rank == MAX_RANK
    assert CLoRA(MAX_RANK // 4, 4).tensors(Shape(1, MAX_RANK))[UP].shape == (1, MAX_RANK)
