"""C3A against the paper's matrix and PEFT's own layer."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import C3AConfig
from peft.tuners.c3a import C3ALinear
from torch import nn

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.method import PackedLayer, Rows, Segment, Shape
from adapters_core.errors import InvalidAdapter
from adapters_core.format.read import Adapter
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.methods.c3a import C3A
from tiny_bases import change_config, peft_adapter, random_layer, relative, tiny_llama

KERNEL = "c3a_kernel"
FLOAT32 = torch.float32
EPS = torch.finfo(FLOAT32).eps
LM = {"task_type": "CAUSAL_LM"}
SHAPES = {
    "square": (Shape(96, 96), 12),
    "one-block": (Shape(64, 64), 64),
    "odd": (Shape(45, 75), 15),
    "prime-block": (Shape(77, 49), 7),
    "tall": (Shape(180, 60), 60),
    "wide": (Shape(32, 96), 16),
    "pairs": (Shape(34, 22), 2),
    "dense": (Shape(53, 31), 1),
    "one-in": (Shape(70, 1), 1),
    "one-out": (Shape(1, 70), 1),
}
each_shape = pytest.mark.parametrize(("shape", "size"), list(SHAPES.values()), ids=list(SHAPES))


@pytest.mark.parametrize("size", [1, 2])
def test_delta_is_the_papers_block_circulant_matrix(size: int) -> None:
    shape, method = Shape(4, 6), C3A(size)
    layer = random_layer(method, shape)
    kernels = layer[KERNEL].tolist()
    true = torch.zeros(4, 6, dtype=torch.float64)
    for i in range(4 // size):
        for j in range(6 // size):
            row = list(kernels[i][j])
            for r in range(size):
                for c in range(size):
                    true[i * size + r, j * size + c] = row[c] / 6
                row = [row[-1], *row[:-1]]  # the row above, shifted right
    assert relative(method.delta(layer, shape, FLOAT32), true) < 1e-7
    cells = torch.arange(24)
    exact = method.cells(layer, shape, cells // 6, cells % 6).view(4, 6)
    assert relative(exact, true) < 1e-15


def test_three_wide_block_is_shifted_right() -> None:
    layer = {KERNEL: torch.tensor([[[3.0, 6.0, 9.0]]])}
    delta = C3A(3).delta(layer, Shape(3, 3), FLOAT32)
    assert delta.tolist() == [[1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [2.0, 3.0, 1.0]]


@each_shape
def test_delta_and_batch_are_pefts(shape: Shape, size: int) -> None:
    method = C3A(size)
    config = C3AConfig(block_size=size, init_weights="gaussian")
    base = nn.Linear(shape.in_, shape.out, bias=False)
    nn.init.zeros_(base.weight)
    torch.manual_seed(0)
    theirs = C3ALinear(base, "default", config, size)
    layer = {KERNEL: theirs.c3a_kernel["default"].detach()}
    delta = method.delta(layer, shape, FLOAT32)
    assert relative(delta, theirs.get_delta_weight("default")) <= 1e-6
    x = torch.randn(5, shape.in_, generator=torch.Generator().manual_seed(2))
    packed = method.pack(layer, shape, FLOAT32)
    assert packed.shape == (method.packed_length(shape),)
    rows = Rows(torch.zeros(5, dtype=torch.int64), 2, (Segment(2, 5, 0),))
    bank = PackedLayer(packed[None], 0, len(packed))
    assert relative(method.apply(x, bank, rows, shape, FLOAT32), theirs(x)) <= 1e-6


@each_shape
def test_row_has_its_bits_in_any_batch(shape: Shape, size: int) -> None:
    method = C3A(size)
    bank = Bank(Layout.of({"": method}, {"": shape}), BasisCache(torch.device("cpu")), slots=2)
    slots = torch.tensor(
        [
            bank.add(bank.pack({"": method}, {"": random_layer(method, shape, seed)}))
            for seed in range(2)
        ]
    )
    x = torch.randn(37, shape.in_, generator=torch.Generator().manual_seed(3))
    picked = slots[torch.randint(2, (37,), generator=torch.Generator().manual_seed(4))]
    for threads in (1, 2):
        torch.set_num_threads(threads)  # the module's fixture puts it back
        whole = bank.apply("", x, Rows(picked, 37))
        assert whole is not None
        for start, stop in [(0, 1), (3, 4), (36, 37), (0, 5), (7, 30), (1, 37)]:
            part = bank.apply("", x[start:stop], Rows(picked[start:stop], stop - start))
            assert part is not None
            assert torch.equal(part, whole[start:stop]), (threads, start, stop)


def test_float64_basis_is_closer() -> None:
    shape, method = Shape(90, 60), C3A(30)
    layer = random_layer(method, shape)
    cells = torch.arange(90 * 60)
    true = method.cells(layer, shape, cells // 60, cells % 60).view(90, 60)
    x = torch.randn(4, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    packed = method.pack(layer, shape, torch.float64)
    rows = Rows(torch.zeros(4, dtype=torch.int64), 4)
    got = method.apply(x, PackedLayer(packed[None], 0, len(packed)), rows, shape, torch.float64)
    assert relative(got, x @ true.T) < EPS  # the bank itself is float32


SAVED: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": ["q_proj", "v_proj"], "block_size": 16},
    "all-linear": {"target_modules": "all-linear", "block_size": 4},
    "pattern": {
        "target_modules": ["q_proj", "k_proj", "down_proj"],
        "block_size": 8,
        # A path's beginning does not match; the first that matches counts.
        "block_size_pattern": {
            "self_attn": 2,
            r"1\.self_attn\.q_proj": 32,
            "q_proj": 48,
            "down_proj": 12,
        },
    },
}


@pytest.mark.parametrize("case", list(SAVED))
def test_what_peft_saves_is_read_unchanged(
    case: str, llama_spec: BaseSpec, tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    config = C3AConfig(init_weights="gaussian", **SAVED[case], **LM)
    theirs = peft_adapter(tiny_llama(), config, tmp_path).base_model.model
    adapter = read(tmp_path)
    adapted = {name for name, m in theirs.named_modules() if isinstance(m, C3ALinear)}
    assert set(adapter.methods) == adapted
    for target, method in adapter.methods.items():
        module = theirs.get_submodule(target)
        assert method == C3A(module.block_size["default"])
        delta = method.delta(adapter.layers[target], llama_spec.targets[target], FLOAT32)
        assert relative(delta, module.get_delta_weight("default")) <= 1e-6


@pytest.mark.parametrize("size", [0, -4, 5, 64, 1.5, "16"])
def test_bad_block_size_is_refused_by_name(
    size: Any, tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    config = C3AConfig(target_modules=["q_proj"], block_size=16, **LM)
    peft_adapter(tiny_llama(), config, tmp_path)
    change_config(tmp_path, {"block_size": size})
    with pytest.raises(InvalidAdapter, match="block_size") as caught:
        read(tmp_path)
    assert caught.value.param == "block_size"


def test_kernel_of_another_block_size_is_refused_by_name(
    tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    config = C3AConfig(target_modules=["q_proj"], block_size=16, **LM)
    peft_adapter(tiny_llama(), config, tmp_path)
    change_config(tmp_path, {"block_size": 8})
    with pytest.raises(InvalidAdapter) as caught:
        read(tmp_path)
    assert str(caught.value.param).endswith(f"q_proj.{KERNEL}")


@pytest.mark.parametrize("shape", [Shape(4096, 11008), Shape(96, 32), Shape(53, 31), Shape(1, 70)])
def test_fitted_block_divides_both_widths(shape: Shape) -> None:
    size = C3A().fitted(shape).block_size
    assert C3A(size).tensors(shape)
    assert size == min(256, math.gcd(*shape))


def test_fitted_keeps_a_block_that_fits() -> None:
    assert C3A(48).fitted(Shape(96, 96)) == C3A(48)
    assert C3A(40).fitted(Shape(96, 96)) == C3A(32)


def test_block_sizes_have_banks_of_their_own() -> None:
    shape = Shape(8, 8)
    assert C3A(2).signature(shape) != C3A(4).signature(shape)
