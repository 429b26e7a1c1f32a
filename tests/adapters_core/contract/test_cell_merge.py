"""Merging a sparse delta: the sum rounded once, in the cells that the delta touches alone."""

import hashlib
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from adapters_core.contract.cell_merge import merge_cells
from adapters_core.contract.method import Method, Shape
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.methods import SHiRA, WaveletFT
from made import random_coefficients

SHAPE = Shape(45, 77)
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def weight_of(dtype: torch.dtype, shape: Shape = SHAPE) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def sha256(weight: Tensor) -> str:
    return hashlib.sha256(weight.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def deltas(seed: int, shape: Shape = SHAPE) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield cells and addends without end, of sizes from tiny to a thousand times the weight's."""
    generator = torch.Generator().manual_seed(seed)
    size = shape.out * shape.in_
    while True:
        n = int(torch.randint(1, 200, (), generator=generator))
        cells = torch.randperm(size, generator=generator)[:n].sort().values
        scale = 10.0 ** float(torch.randint(-6, 4, (), generator=generator))
        yield cells, scale * torch.randn(n, generator=generator)


@each_dtype
def test_merge_is_the_sum_rounded_once_and_nothing_else(dtype: torch.dtype) -> None:
    weight, (cells, addends) = weight_of(dtype), next(deltas(1))
    want = weight.clone().view(-1)
    for cell, addend in zip(cells.tolist(), addends, strict=True):
        want[cell] = (want[cell].to(torch.promote_types(dtype, torch.float32)) + addend).to(dtype)
    merge_cells(weight, cells, addends)
    assert torch.equal(weight.view(-1), want)


METHODS = [
    WaveletFT(n=40),
    WaveletFT(n=5, wavelet="db2"),
    WaveletFT(n=9, num_levels=2),
    WaveletFT(n=100, use_idwt=False),
    SHiRA(r=2),
]


def changed(method: Method, seed: int, shape: Shape = SHAPE) -> tuple[Tensor, Tensor]:
    basis = BasisCache(torch.device("cpu")).get(method, shape)
    cells = method.changed_cells(random_coefficients(method, shape, basis, seed), shape, basis)
    assert cells is not None
    return cells


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_changed_cells_are_the_delta(method: Method) -> None:
    basis = BasisCache(torch.device("cpu")).get(method, SHAPE)
    layer = random_coefficients(method, SHAPE, basis, 3)
    cells, addends = changed(method, 3)
    delta = torch.zeros(SHAPE.out * SHAPE.in_).index_copy(0, cells, addends).view(*SHAPE)
    assert torch.equal(delta, method.delta(layer, SHAPE, basis))
    assert bool((cells[1:] > cells[:-1]).all())
    assert addends.dtype == torch.float32


def test_positions_of_shira_that_repeat_and_do_not_ascend() -> None:
    method, shape = SHiRA(r=1), Shape(64, 48)
    layer = random_coefficients(method, shape, None, 3)
    layer["shira_indices"] = layer["shira_indices"].flip(1).contiguous()
    layer["shira_indices"][:, 5] = layer["shira_indices"][:, 77]
    found = method.changed_cells(layer, shape, None)
    assert found is not None
    assert bool((found[0][1:] > found[0][:-1]).all())
    delta = torch.zeros(shape.out * shape.in_).index_copy(0, *found).view(*shape)
    assert torch.equal(delta, method.delta(layer, shape, None))
    assert len(found[0]) == 111


def test_many_positions_of_shira_are_no_list_of_cells() -> None:
    method, shape = SHiRA(r=8), Shape(64, 48)
    layer = random_coefficients(method, shape, None, 3)
    assert method.changed_cells(layer, shape, None) is None


@each_dtype
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_merging_a_sparse_delta_builds_no_dense_one(
    method: Method, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    basis, golden = BasisCache(torch.device("cpu")).get(method, SHAPE), weight_of(dtype)
    layer = random_coefficients(method, SHAPE, basis, 3)
    want = (golden + method.delta(layer, SHAPE, basis)).to(dtype)
    out = torch.full_like(golden, torch.nan)
    monkeypatch.delattr(type(method), "delta")
    method.merge_many([layer], [golden], [out], SHAPE, basis)
    assert torch.equal(out, want)
    assert sha256(golden) == sha256(weight_of(dtype))


class Counted(TorchDispatchMode):
    """Counts the numbers that torch operations make or write, but for views."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result is args[0]:  # in place: what is written
            written = [arg.numel() for arg in args[1:] if isinstance(arg, Tensor)]
            self.numbers += max(written, default=0)
        elif isinstance(result, Tensor) and not function.is_view:
            self.numbers += result.numel()
        return result


@pytest.mark.parametrize("method", [WaveletFT(n=300), SHiRA(r=1)], ids=["waveletft", "shira"])
def test_a_merge_costs_what_it_touches(method: Method) -> None:
    """Six numbers a cell whatever the size of the weight: none is made of the weight's size."""
    for shape in (Shape(256, 256), Shape(2048, 512)):
        weight, delta = weight_of(torch.float32, shape), changed(method, 1, shape)
        with Counted() as counted:
            merge_cells(weight, *delta)
        assert len(delta[0]) <= counted.numbers < 6 * len(delta[0]) < shape.out * shape.in_ / 4


def test_haar_and_shira_touch_few_cells() -> None:
    shape = Shape(1024, 1024)
    assert 3900 < len(changed(WaveletFT(n=1000), 0, shape)[0]) <= 4000
    assert len(changed(SHiRA(r=2), 0, shape)[0]) == 2 * 2048


def test_inference_tensors_are_merged_into_too() -> None:
    with torch.inference_mode():
        weight = weight_of(torch.bfloat16)
    want, delta = weight_of(torch.bfloat16), (torch.arange(5), torch.ones(5))
    merge_cells(want, *delta)
    merge_cells(weight, *delta)
    assert sha256(weight) == sha256(want) != sha256(weight_of(torch.bfloat16))


ONE = torch.ones(1)


@pytest.mark.parametrize(
    ("cells", "addends"),
    [
        (torch.tensor([-1]), ONE),
        (torch.tensor([SHAPE.out * SHAPE.in_]), ONE),
        (torch.tensor([3, 3]), torch.ones(2)),
        (torch.tensor([4, 3]), torch.ones(2)),
        (torch.tensor([1, -5, 7]), torch.ones(3)),
        (torch.tensor([1, 2]), ONE),
        (torch.tensor([1], dtype=torch.int32), ONE),
        (torch.tensor([[1]]), torch.ones(1, 1)),
    ],
)
def test_cells_that_do_not_ascend_within_the_weight_change_nothing(
    cells: Tensor, addends: Tensor
) -> None:
    weight = weight_of(torch.float32)
    with pytest.raises(ValueError, match="cells"):
        merge_cells(weight, cells, addends)
    assert sha256(weight) == sha256(weight_of(torch.float32))


def test_a_weight_that_is_no_buffer_of_numbers_is_refused() -> None:
    delta = torch.tensor([0]), ONE
    with pytest.raises(ValueError, match="not contiguous"):
        merge_cells(weight_of(torch.float32).T, *delta)
    with pytest.raises(ValueError, match="int64"):
        merge_cells(torch.ones(2, 2, dtype=torch.int64), *delta)


def test_a_delta_of_no_cells_changes_nothing() -> None:
    weight = weight_of(torch.float32)
    merge_cells(weight, torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    assert sha256(weight) == sha256(weight_of(torch.float32))
