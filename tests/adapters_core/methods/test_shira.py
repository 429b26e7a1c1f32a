"""SHiRA against the plain scatter and PEFT's own layer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, ShiraConfig
from peft.tuners.shira.layer import Linear as ShiraLinear
from torch import Tensor, nn

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.method import PackedLayer, Rows, Segment, Shape
from adapters_core.errors import InvalidAdapter
from adapters_core.format.read import Adapter
from adapters_core.format.write import write_adapter
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.methods.shira import SHiRA
from tiny_bases import (
    change_config,
    change_tensors,
    peft_adapter,
    relative,
    tiny_llama,
    without_warnings,
)

WEIGHT, INDICES = "shira_weight", "shira_indices"
LM = {"task_type": "CAUSAL_LM"}
SHAPES = {
    "square": (Shape(96, 96), 2),
    "odd": (Shape(45, 77), 3),
    "tall": (Shape(180, 60), 2),
    "wide": (Shape(48, 96), 1),
    "prime": (Shape(53, 31), 1),
}
each_shape = pytest.mark.parametrize(("shape", "r"), list(SHAPES.values()), ids=list(SHAPES))


def drawn(method: SHiRA, shape: Shape, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    layer = method.init(shape, generator)
    return layer | {WEIGHT: torch.randn(layer[WEIGHT].shape, generator=generator)}


def test_delta_is_the_plain_scatter() -> None:
    shape, method = Shape(4, 6), SHiRA(r=1)
    layer = drawn(method, shape)
    layer[INDICES][:, 3] = layer[INDICES][:, 7]  # a position that stands twice
    true = torch.zeros(4, 6, dtype=torch.float64)
    rows, cols = layer[INDICES].tolist()
    for row, col, weight in zip(rows, cols, layer[WEIGHT].tolist(), strict=True):
        true[row, col] += weight
    assert len(rows) == 10
    assert relative(method.delta(layer, shape, None), true) < 1e-7
    cells = torch.arange(24)
    exact = method.cells(layer, shape, cells // 6, cells % 6).view(4, 6)
    assert relative(exact, true) < 1e-15


@each_shape
def test_delta_and_batch_are_pefts(shape: Shape, r: int) -> None:
    method = SHiRA(r)
    config = ShiraConfig(r=r, init_weights=False, random_seed=3)
    base = nn.Linear(shape.in_, shape.out, bias=False)
    nn.init.zeros_(base.weight)
    mask = config.mask_fn(base, r, random_seed=3)
    torch.manual_seed(0)
    theirs = ShiraLinear(base, mask, "default", config=config, r=r)
    layer = {
        WEIGHT: theirs.shira_weight["default"].detach(),
        INDICES: theirs.shira_indices["default"],
    }
    delta = method.delta(layer, shape, None)
    x = torch.randn(5, shape.in_, generator=torch.Generator().manual_seed(2))
    packed = method.pack(layer, shape, None)
    rows = Rows(torch.zeros(5, dtype=torch.int64), 2, (Segment(2, 5, 0),))
    got = method.apply(x, PackedLayer(packed[None], 0, len(packed)), rows, shape, None)
    with without_warnings():  # torch's, about sparse tensors
        assert torch.equal(delta, theirs.get_delta_weight("default").to_dense())
        assert relative(got, theirs(x)) <= 1e-6


@each_shape
def test_row_has_its_bits_in_any_batch(shape: Shape, r: int) -> None:
    method = SHiRA(r)
    bank = Bank(Layout.of({"": method}, {"": shape}), BasisCache(torch.device("cpu")), slots=2)
    slots = torch.tensor(
        [bank.add(bank.pack({"": method}, {"": drawn(method, shape, seed)})) for seed in range(2)]
    )
    x = torch.randn(19, shape.in_, generator=torch.Generator().manual_seed(3))
    picked = slots[torch.randint(2, (19,), generator=torch.Generator().manual_seed(4))]
    whole = bank.apply("", x, Rows(picked, 19))
    assert whole is not None
    for start, stop in [(0, 1), (18, 19), (0, 5), (7, 16), (1, 19)]:
        part = bank.apply("", x[start:stop], Rows(picked[start:stop], stop - start))
        assert part is not None
        assert torch.equal(part, whole[start:stop])


def test_positions_survive_packing_exactly() -> None:
    shape = Shape(1 << 24, 3)
    positions = torch.tensor([[(1 << 24) - 1, (1 << 24) - 2, 0], [2, 1, 0]], dtype=torch.int32)
    layer = {WEIGHT: torch.ones(3), INDICES: positions}
    _, rows, cols = SHiRA(r=1).pack(layer, shape, None).chunk(3)
    assert torch.equal(torch.stack([rows, cols]).int(), positions)


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["q_proj", "v_proj"], "r": 3},
        {"target_modules": "all-linear", "r": 1, "random_seed": 7},
    ],
    ids=["plain", "all-linear"],
)
def test_what_peft_saves_is_read_unchanged(
    config: dict[str, Any], llama_spec: BaseSpec, tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    made = ShiraConfig(init_weights=False, **config, **LM)
    theirs = peft_adapter(tiny_llama(), made, tmp_path).base_model.model
    adapter = read(tmp_path)
    adapted = {name for name, m in theirs.named_modules() if isinstance(m, ShiraLinear)}
    assert set(adapter.methods) == adapted
    assert set(adapter.methods.values()) == {SHiRA(config["r"])}
    for target, method in adapter.methods.items():
        module = theirs.get_submodule(target)
        layer = adapter.layers[target]
        assert torch.equal(layer[INDICES], module.shira_indices["default"])
        delta = method.delta(layer, llama_spec.targets[target], None)
        with without_warnings():
            assert torch.equal(delta, module.get_delta_weight("default").to_dense())


def test_peft_loads_what_we_wrote(llama_spec: BaseSpec, tmp_path: Path) -> None:
    method = SHiRA(r=2)
    targets = [target for target in llama_spec.targets if target.endswith(("q_proj", "v_proj"))]
    layers = {
        target: drawn(method, llama_spec.targets[target], seed)
        for seed, target in enumerate(targets)
    }
    write_adapter(tmp_path, method, layers, llama_spec)
    with without_warnings():
        theirs = PeftModel.from_pretrained(tiny_llama(), str(tmp_path)).base_model.model
    for target, layer in layers.items():
        ours = method.delta(layer, llama_spec.targets[target], None)
        with without_warnings():
            delta = theirs.get_submodule(target).get_delta_weight("default").to_dense()
        assert torch.equal(ours, delta)


@pytest.mark.parametrize(
    ("side", "position"), [(0, 96), (0, -1), (1, 96), (1, -5), (0, 2**31 - 1), (1, -(2**31))]
)
def test_position_outside_the_layer_is_refused_by_name(side: int, position: int) -> None:
    shape, method = Shape(96, 96), SHiRA(r=1)
    layer = drawn(method, shape)
    method.check(layer, shape)
    layer[INDICES][side, 5] = position
    for refuse in (method.check, lambda *given: method.pack(*given, None)):
        with pytest.raises(InvalidAdapter, match=str(position)) as caught:
            refuse(layer, shape)
        assert caught.value.param == INDICES


def saved_q(folder: Path) -> str:
    """Save PEFT's adapter of rank 2 on the queries; return the beginning of a layer's keys."""
    config = ShiraConfig(target_modules=["q_proj"], r=2, init_weights=False, **LM)
    peft_adapter(tiny_llama(), config, folder)
    return "base_model.model.model.layers.0.self_attn.q_proj."


@pytest.mark.parametrize(("side", "position"), [(0, 96), (1, -1)])
def test_file_with_a_position_outside_is_refused_by_name(
    side: int, position: int, tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    key = saved_q(tmp_path) + INDICES
    change_tensors(tmp_path, lambda tensors: tensors[key][side, 5].fill_(position))
    with pytest.raises(InvalidAdapter, match=f" {position} ") as caught:
        read(tmp_path)
    assert caught.value.param == key


def test_layer_too_wide_for_exact_positions_is_refused() -> None:
    layer = {WEIGHT: torch.ones(1), INDICES: torch.zeros(2, 1, dtype=torch.int32)}
    with pytest.raises(InvalidAdapter, match="too wide"):
        SHiRA(r=1).check(layer, Shape((1 << 24) + 1, 3))


@pytest.mark.parametrize("r", [0, -1, 1.5])
def test_bad_r_is_refused_by_name(r: float, tmp_path: Path, read: Callable[..., Adapter]) -> None:
    saved_q(tmp_path)
    change_config(tmp_path, {"r": r})
    with pytest.raises(InvalidAdapter, match="r = ") as caught:
        read(tmp_path)
    assert caught.value.param == "r"


def test_another_number_of_positions_is_refused_by_name(
    tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    key = saved_q(tmp_path) + INDICES

    def shorten(tensors: dict[str, Tensor]) -> None:
        tensors[key] = tensors[key][:, :-1].contiguous()

    change_tensors(tmp_path, shorten)
    with pytest.raises(InvalidAdapter) as caught:
        read(tmp_path)
    assert caught.value.param == key


def test_positions_that_are_no_integers_are_refused_by_name(
    tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    key = saved_q(tmp_path) + INDICES
    change_tensors(tmp_path, lambda tensors: tensors.update({key: tensors[key].float()}))
    with pytest.raises(InvalidAdapter, match="dtype") as caught:
        read(tmp_path)
    assert caught.value.param == key


def test_fresh_positions_differ_and_lie_inside() -> None:
    for shape in (Shape(45, 77), Shape(70, 1), Shape(1, 70)):
        fresh = SHiRA(r=1).init(shape, torch.Generator().manual_seed(0))
        assert fresh[INDICES].dtype == torch.int32
        SHiRA(r=1).check(fresh, shape)
        rows, cols = fresh[INDICES]
        assert len(set((rows * shape.in_ + cols).tolist())) == fresh[WEIGHT].numel()


def test_zero_weights_are_no_update_whatever_their_positions() -> None:
    layer = drawn(SHiRA(r=1), Shape(4, 6))
    assert not SHiRA(r=1).is_zero(layer)
    assert SHiRA(r=1).is_zero(layer | {WEIGHT: torch.zeros(10)})


def test_ranks_have_banks_of_their_own() -> None:
    assert SHiRA(r=1).signature(Shape(4, 6)) != SHiRA(r=2).signature(Shape(4, 6))
