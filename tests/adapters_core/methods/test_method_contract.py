"""What each registered method promises of its delta; new ones are found by registration."""

import math

import pytest
import torch

from adapters_core.contract.method import Method, Shape
from method_cases import EPS, SHAPES, at, basis_of, each_method, each_shape, random_layer
from tiny_bases import relative


def trained(
    method: Method, layer: dict[str, torch.Tensor], shape: Shape
) -> dict[str, torch.Tensor]:
    """Return the coefficients that training moves."""
    specs = method.tensors(shape)
    return {n: t for n, t in layer.items() if specs[n].floating and specs[n].trained}


def all_cells(shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    flat = torch.arange(shape.out * shape.in_)
    return flat // shape.in_, flat % shape.in_


@each_shape
@each_method
def test_fresh_coefficients_change_nothing(method: Method, shape: Shape) -> None:
    method = at(method, shape)
    fresh = method.init(shape, torch.Generator().manual_seed(0), basis_of(method, shape))
    delta = method.delta(fresh, shape, basis_of(method, shape))
    assert delta.shape == (shape.out, shape.in_)
    assert delta.dtype == torch.float32
    assert not delta.any()
    assert method.is_zero(fresh) or method.needs_base  # only the base knows what is zero there


@each_shape
@each_method
def test_init_is_what_the_file_holds(method: Method, shape: Shape) -> None:
    method = at(method, shape)
    fresh = method.init(shape, torch.Generator().manual_seed(0), basis_of(method, shape))
    specs = method.tensors(shape)
    assert {name: tuple(tensor.shape) for name, tensor in fresh.items()} == {
        name: spec.shape for name, spec in specs.items()
    }
    assert all(fresh[name].dtype == torch.float32 for name in specs if specs[name].floating)


@each_method
def test_init_depends_on_nothing_but_its_generator(method: Method) -> None:
    shape = SHAPES["odd"]
    method = at(method, shape)
    first = method.init(shape, torch.Generator().manual_seed(3), basis_of(method, shape))
    again = method.init(shape, torch.Generator().manual_seed(3), basis_of(method, shape))
    assert all(torch.equal(first[name], again[name]) for name in first)


@each_shape
@each_method
def test_delta_is_the_defining_sum(method: Method, shape: Shape) -> None:
    method = at(method, shape)
    layer = random_layer(method, shape)
    true = method.cells(layer, shape, *all_cells(shape), basis_of(method, shape)).view(
        shape.out, shape.in_
    )
    assert true.dtype == torch.float64
    got = method.delta(layer, shape, basis_of(method, shape))
    assert relative(got, true) < 8 * EPS
    assert not method.is_zero(layer)


@each_shape
@each_method
def test_float64_basis_gives_the_same_delta(method: Method, shape: Shape) -> None:
    method = at(method, shape)
    layer = random_layer(method, shape)
    true = method.cells(layer, shape, *all_cells(shape), basis_of(method, shape)).view(
        shape.out, shape.in_
    )
    got = method.delta(layer, shape, basis_of(method, shape, torch.float64))
    assert relative(got, true) < 2 * EPS


@each_shape
@each_method
def test_delta_many_is_each_delta(method: Method, shape: Shape) -> None:
    method = at(method, shape)
    basis = basis_of(method, shape)
    layers = [random_layer(method, shape, seed) for seed in range(3)]
    many = method.delta_many(layers, shape, basis)
    assert many.shape == (3, shape.out, shape.in_)
    for layer, got in zip(layers, many, strict=True):
        assert relative(got, method.delta(layer, shape, basis)) < 4 * EPS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@each_shape
@each_method
def test_merge_many_writes_golden_plus_delta_rounded_once(
    method: Method, shape: Shape, dtype: torch.dtype
) -> None:
    method = at(method, shape)
    basis = basis_of(method, shape)
    layers = [random_layer(method, shape, seed) for seed in range(2)]
    generator = torch.Generator().manual_seed(5)
    golden = [torch.randn(shape, generator=generator).to(dtype) for _ in layers]
    golden[1] = golden[1].T.contiguous().T  # as GPT-2's Conv1D stores it
    before = [weight.clone() for weight in golden]
    merged = [torch.full(shape, torch.nan, dtype=dtype) for _ in golden]  # as if it were old
    method.merge_many(layers, golden, merged, shape, basis)
    for layer, weight, got in zip(layers, golden, merged, strict=True):
        want = weight.float() + method.delta(layer, shape, basis)
        assert got.dtype == dtype
        assert torch.allclose(got.float(), want, rtol=torch.finfo(dtype).eps, atol=1e-5)
    assert all(torch.equal(weight, kept) for weight, kept in zip(golden, before, strict=True))


@pytest.mark.parametrize("shape", [Shape(96, 96), Shape(48, 96)])
@each_method
def test_the_parts_of_a_merge_are_the_merge_in_any_order(method: Method, shape: Shape) -> None:
    method = at(method, shape)
    basis = basis_of(method, shape)
    layers = [random_layer(method, shape, seed) for seed in range(2)]
    golden = [torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in range(2)]
    merged = [torch.full(shape, torch.nan) for _ in golden]
    parts = method.merge_parts(layers, golden, merged, shape, basis)
    if parts is None:
        assert method.name not in ("fourierft", "lora", "shira")
        return
    for part in reversed(parts):
        part()
    for layer, weight, got in zip(layers, golden, merged, strict=True):
        want = weight + method.delta(layer, shape, basis)
        assert torch.allclose(got, want, rtol=EPS, atol=1e-5)


@each_shape
@each_method
def test_gradients_reach_every_tensor(method: Method, shape: Shape) -> None:
    method = at(method, shape)
    layer = random_layer(method, shape)
    floats = {name: t.requires_grad_() for name, t in trained(method, layer, shape).items()}
    probe = torch.randn(shape.out, shape.in_, generator=torch.Generator().manual_seed(9))
    (method.delta(layer, shape, basis_of(method, shape)) * probe).sum().backward()
    for name, tensor in floats.items():
        assert tensor.grad is not None, name
        assert bool(tensor.grad.any()), name


@each_method
def test_gradients_are_the_differences(method: Method) -> None:
    """The gradient along a random direction against a central difference of the float64 sum."""
    shape = SHAPES["odd"]
    method = at(method, shape)
    layer = random_layer(method, shape)
    floats = {name: t.requires_grad_() for name, t in trained(method, layer, shape).items()}
    probe = torch.randn(shape.out, shape.in_, generator=torch.Generator().manual_seed(9))
    (method.delta(layer, shape, basis_of(method, shape)) * probe).sum().backward()
    step = trained(method, random_layer(method, shape, seed=10), shape)
    cells, basis = all_cells(shape), basis_of(method, shape)

    def loss(along: float) -> float:
        moved = {name: t.detach().double() + along * step[name] for name, t in floats.items()}
        return float(method.cells(layer | moved, shape, *cells, basis) @ probe.reshape(-1).double())

    slope = sum(float((floats[name].grad * step[name]).sum()) for name in floats)
    assert math.isclose(slope, (loss(1e-4) - loss(-1e-4)) / 2e-4, rel_tol=1e-4)


@each_shape
@each_method
def test_twice_gives_the_same_bits(method: Method, shape: Shape) -> None:
    method = at(method, shape)
    layer = random_layer(method, shape)
    first = method.delta(layer, shape, basis_of(method, shape))
    assert torch.equal(first, method.delta(layer, shape, basis_of(method, shape)))


@each_shape
@each_method
def test_delta_of_half_precision_coefficients(method: Method, shape: Shape) -> None:
    method = at(method, shape)
    layer = random_layer(method, shape)
    half = layer | {name: t.to(torch.bfloat16) for name, t in trained(method, layer, shape).items()}
    full = layer | {name: t.float() for name, t in trained(method, half, shape).items()}
    basis = basis_of(method, shape)
    got = method.delta(half, shape, basis)
    assert got.dtype == torch.float32
    assert relative(got, method.delta(full, shape, basis)) < 4 * EPS
