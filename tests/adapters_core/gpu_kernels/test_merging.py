"""Merging kernels in Triton's interpreter against the defining sum; the bytes that they move."""

from collections.abc import Iterator, Mapping, Sequence

import pytest
import torch
from torch import Tensor

from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Coefficients, Method
from adapters_core.gpu_kernels.running import Launch, interpreted, listening
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.merge import materialise
from adapters_core.methods import FourierFT, LoCA, LoRA, WaveletFT
from bench.lib.counting import Cost, cost_of

pytest.importorskip("triton")

CPU, META = torch.device("cpu"), torch.device("meta")
SMALL = [
    (FourierFT(n=40, scale=300.0), (10, 32)),
    (FourierFT(n=6, scale=300.0), (7, 12)),  # 3 parts of 4
    (FourierFT(n=40, scale=300.0), (3, 2048)),  # a part of 32 x 64
    (LoCA(n=40, scale=20.0), (6, 32)),
    (LoCA(n=6, scale=20.0), (5, 12)),
    (LoCA(n=40, scale=20.0), (2, 512)),
    (LoRA(r=3), (70, 40)),
    (LoRA(r=20), (24, 130)),
    (WaveletFT(n=40), (96, 64)),
    (WaveletFT(n=60, wavelet="db4", num_levels=3), (66, 130)),
    (WaveletFT(n=200, wavelet="coif1"), (33, 40)),  # so many that torch's way has dense cores
    (WaveletFT(n=9, use_idwt=False), (20, 30)),
]
#: At 8B shape: 16-bit weights, and n as in the methods' papers and ten times that.
LARGE = [FourierFT(n=1000), FourierFT(n=10_000), LoCA(n=1000), LoCA(n=10_000), LoRA(r=16)]
LARGE += [WaveletFT(n=2592), WaveletFT(n=10_000, wavelet="db4", num_levels=4)]


class Layer:
    """A base's layer of which merging needs to know."""

    is_looked_up = False

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        self.shape = Shape(*weight.shape)

    def golden(self) -> Tensor:
        return self._weight


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drawn(method: Method, shape: Shape, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    fresh = method.init(shape, generator)
    return {
        name: torch.randn(t.shape, generator=generator) if t.is_floating_point() else t
        for name, t in fresh.items()
    }


def exact(method: Method, layer: Coefficients, shape: Shape) -> Tensor:
    """Return the delta by its defining sum, float64."""
    cells = torch.cartesian_prod(torch.arange(shape.out), torch.arange(shape.in_))
    return method.cells(layer, shape, *cells.T).view(*shape)


def merged(
    method: Method, layers: Sequence[Coefficients], golden: Sequence[Tensor]
) -> tuple[list[Tensor], int]:
    """Return what kernels write, and how many there were."""
    out = [torch.full_like(weight, torch.nan) for weight in golden]
    shape = Shape(*golden[0].shape)
    heard: list[Launch] = []
    with interpreted(), listening(heard.append):
        basis = method.basis(shape, CPU, torch.float32)
        method.merge_many(layers, golden, out, shape, basis)
    return out, len(heard)


@pytest.mark.parametrize(("method", "sides"), SMALL, ids=str)
def test_merged_is_golden_plus_the_defining_sum(method: Method, sides: tuple[int, int]) -> None:
    shape = Shape(*sides)
    layers = [drawn(method, shape, seed) for seed in range(2)]
    generator = torch.Generator().manual_seed(3)
    # One lies by rows, the other by columns.
    golden = [
        torch.randn(*shape, generator=generator),
        torch.randn(*shape[::-1], generator=generator).T,
    ]
    before = [weight.clone() for weight in golden]
    out, num_launches = merged(method, layers, golden)
    assert num_launches == 2
    for layer, weight, kept, got in zip(layers, golden, before, out, strict=True):
        delta = exact(method, layer, shape)
        bound = 2e-6 * delta.norm() + torch.finfo(torch.float32).eps * weight.norm()
        assert (got.double() - weight.double() - delta).norm() <= bound
        assert torch.equal(weight, kept)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "sides"),
    [
        (FourierFT(n=1000, scale=300.0), (300, 4096)),
        (FourierFT(n=3000, scale=300.0), (9, 14336)),
        (LoCA(n=1000, scale=20.0), (100, 4096)),
        (LoCA(n=1000, scale=20.0), (2, 11008)),  # 43 parts of 16 x 16
    ],
    ids=str,
)
def test_rows_of_real_bases_are_torch_s(method: Method, sides: tuple[int, int]) -> None:
    shape = Shape(*sides)
    layer = drawn(method, shape, 1)
    weight = torch.zeros(*shape)
    (got,), _ = merged(method, [layer], [weight])
    delta = method.delta(layer, shape, method.basis(shape, CPU, torch.float64))
    assert (got - delta).norm() <= 2e-6 * delta.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("method", "sides"), [SMALL[0], SMALL[6], SMALL[8]], ids=str)
def test_half_precision_is_rounded_once(
    method: Method, sides: tuple[int, int], dtype: torch.dtype
) -> None:
    shape = Shape(*sides)
    layer = drawn(method, shape, 1)
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(4)).to(dtype)
    (got,), _ = merged(method, [layer], [weight])
    true = weight.double() + exact(method, layer, shape)
    # The interpreter cuts numbers off where a GPU rounds them.
    assert got.dtype == dtype
    bound = torch.finfo(dtype).eps * true.abs() + 1e-5 * true.abs().max()
    assert (got.double() - true).abs().le(bound).all()


@pytest.mark.parametrize(
    ("method", "sides", "dtype"),
    [
        (FourierFT(n=5), (4, 67), torch.float32),  # 67 parts of one number
        (LoCA(n=5), (4, 67), torch.float32),
        (FourierFT(n=5), (4, 8), torch.float64),
        (LoRA(r=2), (4, 8), torch.float64),
        (WaveletFT(n=5), (4, 8), torch.float64),
    ],
    ids=str,
)
def test_what_kernels_cannot_do_goes_torch_s_way(
    method: Method, sides: tuple[int, int], dtype: torch.dtype
) -> None:
    shape = Shape(*sides)
    layer = drawn(method, shape, 1)
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(5)).to(dtype)
    (got,), num_launches = merged(method, [layer], [weight])
    assert num_launches == 0
    true = weight.double() + exact(method, layer, shape)
    assert (got.double() - true).norm() <= 1e-6 * true.norm()


def test_old_weights_are_written_over() -> None:
    shape = Shape(6, 16)
    method = FourierFT(n=20, scale=100.0)
    golden = {path: torch.randn(*shape) for path in ("a", "b")}
    linears = {path: Layer(weight) for path, weight in golden.items()}
    layers = {path: drawn(method, shape, seed) for seed, path in enumerate(golden)}
    methods = dict.fromkeys(golden, method)
    old = {path: torch.full(shape, torch.nan) for path in golden}
    with interpreted():
        got = materialise(methods, layers, linears, BasisCache(CPU), old)
    torch_way = materialise(methods, layers, linears, BasisCache(CPU))
    for path in golden:
        assert got[path] is old[path]
        torch.testing.assert_close(got[path], torch_way[path], rtol=0, atol=1e-5)


def cost_of_merging(methods: Mapping[str, Method], shapes: Mapping[str, Shape]) -> Cost:
    """Return what merging an adapter into 16-bit weights takes once its bases are there."""
    weights = {t: torch.empty(*s, dtype=torch.bfloat16, device=META) for t, s in shapes.items()}
    linears = {target: Layer(weight) for target, weight in weights.items()}
    layers = {target: drawn(method, shapes[target], 1) for target, method in methods.items()}
    bases = BasisCache(META)
    return cost_of(lambda: materialise(methods, layers, linears, bases)).cost


@pytest.mark.parametrize("method", LARGE, ids=str)
@pytest.mark.parametrize(
    "shape",
    [Shape(1024, 4096), Shape(4096, 4096), Shape(14336, 4096), Shape(4096, 14336)],
    ids=str,
)
def test_merging_moves_little_more_than_the_weight(method: Method, shape: Shape) -> None:
    cost = cost_of_merging({"q": method, "v": method}, {"q": shape, "v": shape})
    read_and_written = 2 * 2 * 2 * shape.out * shape.in_
    assert cost.own == 2
    assert read_and_written < cost.num_bytes <= 1.5 * read_and_written
