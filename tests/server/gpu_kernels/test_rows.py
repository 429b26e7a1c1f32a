"""Kernels of rows, by Triton's interpreter, against the defining formulas in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("triton")

from server.gpu_kernels.rows import can_rotate, gated, normed, rotated, stored

EPS = torch.finfo(torch.float32).eps


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(dtype)


def close(got: Tensor, exact: Tensor, roundings: float) -> bool:
    return bool(((got - exact).abs().max() <= roundings * EPS * exact.abs().max()).item())


@pytest.mark.parametrize("adds_one", [False, True])
@pytest.mark.parametrize("shape", [(1, 3, 48), (5, 16), (1, 2, 3, 24), (2, 3000), (1100, 1)])
def test_a_norm_divides_by_the_root_mean_square(shape: tuple[int, ...], adds_one: bool) -> None:
    x, weight = 3 * random(*shape), random(shape[-1])
    got = normed(x, weight, 1e-5, adds_one)
    exact = F.rms_norm(x.double(), shape[-1:], eps=1e-5) * (weight.double() + adds_one)
    assert got.shape == x.shape
    assert close(got, exact, 8)


def test_a_norm_of_a_view_leaves_it_as_it_is() -> None:
    x = random(48, 6)
    before = x.clone()
    got = normed(x.T, random(48), 1e-6, adds_one=False)
    assert torch.equal(got, normed(x.T.contiguous(), random(48), 1e-6, adds_one=False))
    assert torch.equal(x, before)


@pytest.mark.parametrize(("dim", "turned"), [(16, 16), (24, 24), (20, 12), (40, 8)])
@pytest.mark.parametrize("heads", [(2, 1), (9, 3), (8, 16)])
def test_heads_are_rotated_by_pairs(heads: tuple[int, int], dim: int, turned: int) -> None:
    q, k = (random(1, 3, count, dim).transpose(1, 2) for count in heads)
    angle = random(1, 3, turned // 2)
    cos, sin = (torch.cat([one, one], dim=-1) for one in (angle.cos(), angle.sin()))
    for x, got in zip((q, k), rotated(q, k, cos, sin), strict=True):
        # Numbers i and i + r / 2 of a head are a complex number; it is turned by the angle.
        left, right = x[..., : turned // 2].double(), x[..., turned // 2 : turned].double()
        turn = torch.polar(torch.ones(()).double(), angle.double())
        exact = torch.complex(left, right) * turn
        rest = x[..., turned:]
        assert got.shape == x.shape
        assert close(got[..., :turned], torch.cat([exact.real, exact.imag], dim=-1), 4)
        assert torch.equal(got[..., turned:], rest)
        assert got.transpose(1, 2).is_contiguous()


def test_what_cannot_be_rotated() -> None:
    q, cos = random(1, 2, 3, 16), random(1, 3, 16)
    assert can_rotate(q, q, cos, cos)
    assert not can_rotate(q.expand(2, 2, 3, 16), q, cos, cos)
    assert not can_rotate(q, q.transpose(2, 3), cos, cos)
    assert not can_rotate(q, q, random(1, 3, 32)[..., ::2], cos)
    assert not can_rotate(q, q, random(1, 3, 32), random(1, 3, 32))
    assert not can_rotate(q, q.double(), cos, cos)


@pytest.mark.parametrize("shape", [(1, 3, 48), (2, 1500)])
@pytest.mark.parametrize("is_silu", [True, False])
def test_gates_multiply(shape: tuple[int, ...], is_silu: bool) -> None:
    joined = 4 * random(*shape[:-1], 2 * shape[-1])
    for gates, ups in (joined.chunk(2, dim=-1), (joined[..., ::2], joined[..., 1::2])):
        x = gates.double()
        active = F.silu(x) if is_silu else F.gelu(x, approximate="tanh")
        got = gated(gates, ups, is_silu)
        assert got.is_contiguous()
        assert close(got, active * ups.double(), 8)


def test_large_gates_do_not_overflow() -> None:
    gates = torch.tensor([[-200.0, 200.0]])
    for is_silu in (True, False):
        got = gated(gates, torch.ones(1, 2), is_silu)
        assert torch.equal(got, torch.tensor([[0.0, 200.0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "dim_k", "dim_v"), [(2, 16, 16), (9, 5, 24), (1, 1, 1)])
def test_rows_go_to_their_cells(heads: int, dim_k: int, dim_v: int, dtype: torch.dtype) -> None:
    cells = torch.tensor([7, 0, 3])
    keys, values = (random(9, heads, dim, dtype=dtype) for dim in (dim_k, dim_v))
    k, v = (random(heads, 3, dim, dtype=dtype).transpose(0, 1) for dim in (dim_k, dim_v))
    true = [a.index_copy(0, cells, b) for a, b in ((keys, k), (values, v))]
    stored(k, v.transpose(1, 2).contiguous().transpose(1, 2), keys, values, cells)
    assert torch.equal(keys, true[0])
    assert torch.equal(values, true[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_and_written(dtype: torch.dtype) -> None:
    eps = torch.finfo(dtype).eps
    x, weight = random(4, 64, dtype=dtype), random(64, dtype=dtype)
    exact = F.rms_norm(x.double(), (64,), eps=1e-5) * weight
    got = normed(x, weight, 1e-5, adds_one=False)
    assert got.dtype == dtype
    # Rounded twice; the interpreter cuts off, which is a whole place.
    assert (got - exact).abs().le(2 * eps * exact.abs()).all()
    product = gated(x, weight.expand(4, 64), is_silu=True)
    exact = F.silu(x.double()) * weight
    assert product.dtype == dtype
    assert (product - exact).abs().le(2 * eps * exact.abs()).all()
