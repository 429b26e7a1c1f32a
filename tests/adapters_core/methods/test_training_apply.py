"""What training goes through is `x @ training_delta.T`, and so are all of its gradients."""

import pytest
import torch
from torch import Tensor

import adapters_core.methods  # noqa: F401  (registers the methods)
from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method
from method_cases import at, basis_of, each_method, each_shape
from tiny_bases import relative

_TOLERANCE = 3e-5
_ROWS = 6


def started(method: Method, shape: Shape) -> dict[str, Tensor]:
    """Return what training moves, away from zero, and what it does not."""
    generator = torch.Generator().manual_seed(3)
    layer = method.training_init(shape, generator, basis_of(method, shape))
    specs = method.training_tensors(shape)
    assert set(layer) == set(specs)
    moved = {}
    for name, tensor in layer.items():
        if tensor.is_floating_point() and specs[name].trained and specs[name].role != "positions":
            tensor = tensor + 0.3 * torch.randn(tensor.shape, generator=generator)
        moved[name] = tensor
    return moved


def through(
    method: Method, x: Tensor, layer: dict[str, Tensor], shape: Shape, basis: object
) -> Tensor:
    """Return the rows x through the update, as a training plan has it."""
    return method.training_apply(method.training_analyse(x, shape, basis), layer, shape, basis)


def gradients(method: Method, shape: Shape, factored: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Return y, and the gradients of x and of all that is trained, for a fixed probe."""
    specs, basis = method.training_tensors(shape), basis_of(method, shape)
    layer = started(method, shape)
    moved = {n: t for n, t in layer.items() if t.is_floating_point() and specs[n].trained}
    for tensor in moved.values():
        tensor.requires_grad_()
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(_ROWS, shape.in_, generator=generator).requires_grad_()
    probe = torch.randn(_ROWS, shape.out, generator=generator)
    if factored:
        y = through(method, x, layer, shape, basis)
    else:
        y = x @ method.training_delta(layer, shape, basis).T
    (y * probe).sum().backward()
    found = {n: t.grad for n, t in moved.items() if t.grad is not None}
    assert x.grad is not None
    return y.detach(), found | {"x": x.grad}


@each_shape
@each_method
def test_factored_training_has_the_dense_updates_values_and_gradients(
    method: Method, shape: Shape
) -> None:
    method = at(method.fitted(shape), shape)
    y, found = gradients(method, shape, factored=True)
    expected_y, expected = gradients(method, shape, factored=False)
    assert relative(y, expected_y) < _TOLERANCE
    assert set(found) == set(expected)
    for name, gradient in found.items():
        if expected[name].any() or gradient.any():
            size = expected[name].norm() + 1e-6
            assert (gradient - expected[name]).norm() < 10 * _TOLERANCE * size, name


@each_method
def test_half_precision_rows_keep_coefficients_in_float32(method: Method) -> None:
    shape = Shape(96, 96)
    method = at(method, shape)
    layer, basis = started(method, shape), basis_of(method, shape)
    specs = method.training_tensors(shape)
    trained = [
        tensor.requires_grad_()
        for name, tensor in layer.items()
        if tensor.is_floating_point() and specs[name].trained
    ]
    x = torch.randn(4, 96, generator=torch.Generator().manual_seed(0))
    half = x.bfloat16().requires_grad_()
    y = through(method, half, layer, shape, basis)
    expected = x @ method.training_delta(layer, shape, basis).T
    assert relative(y.float(), expected) < 0.02
    y.float().sum().backward()
    moved = [tensor.grad for tensor in trained if tensor.grad is not None]
    assert moved
    assert all(gradient.dtype == torch.float32 for gradient in moved)
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16


@each_method
def test_no_update_of_a_wide_layer_is_built(
    method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = Shape(480, 480)
    method = at(method, shape)
    layer, basis = started(method, shape), basis_of(method, shape)
    for name in ("delta", "training_delta", "delta_many"):
        monkeypatch.setattr(type(method), name, None)
    through(method, torch.ones(2, 480), layer, shape, basis)


@pytest.mark.parametrize("rows", [1, 2, 700])
def test_values_taken_one_by_one_add_up(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from adapters_core.methods import FourierFT
    from adapters_core.transforms import factored

    shape, method = Shape(96, 60), FourierFT(n=30)
    basis = method.basis(shape, torch.device("cpu"), torch.float32)
    layer = {"fourierft_spectrum": torch.randn(30, generator=torch.Generator().manual_seed(0))}
    x = torch.randn(rows, 60, generator=torch.Generator().manual_seed(1))
    whole = through(method, x, layer, shape, basis)
    monkeypatch.setattr(factored, "_AT_ONCE", 1)
    assert relative(through(method, x, layer, shape, basis), whole) < 1e-6
