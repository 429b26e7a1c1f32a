"""Layers that read the same rows share their analysis in training, and nothing else does."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.linear import AdaptedLinear, Switch
from adapters_core.layers.training_plan import TrainingPlan
from adapters_core.methods import FourierFT, LoCA, WaveletFT
from tiny_bases import relative

#: Wide enough for n = 8 that no update is built; k is another way over.
SHAPES = {"q": Shape(96, 96), "k": Shape(48, 96), "v": Shape(96, 96)}
METHODS = [FourierFT(8, 300.0), LoCA(8), WaveletFT(8)]
_TOLERANCE = 1e-5

each_method = pytest.mark.parametrize("method", METHODS, ids=[m.name for m in METHODS])


class Layers:
    """q, k and v with a training plan whose coefficients are away from zero."""

    def __init__(self, method: Method, dropout: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(0)
        bases = BasisCache(torch.device("cpu"))
        self.plan = TrainingPlan(method, SHAPES, bases, generator, dropout)
        self._switch = Switch()
        self._switch.plan = self.plan
        self.linears = {path: self._linear(path) for path in SHAPES}
        for layer in self.plan.layers.values():
            for name, tensor in layer.items():
                if name.endswith("spectrum"):
                    tensor.data = torch.randn(tensor.shape, generator=generator)
        self._bases = bases

    def _linear(self, path: str) -> AdaptedLinear:
        base = nn.Linear(SHAPES[path].in_, SHAPES[path].out, bias=False).requires_grad_(False)
        return AdaptedLinear(base, path, self._switch)

    def dense(self, path: str, x: Tensor) -> Tensor:
        """Return the layer's answer through a weight that has the update in it."""
        method, shape = self.plan.methods[path], SHAPES[path]
        layer = self.plan.layers[path]
        delta = method.training_delta(layer, shape, self._bases.get(method, shape, path))
        return x @ (self.linears[path].golden() + delta).T

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients of all that is trained, and forget them."""
        found = {}
        for target, layer in self.plan.layers.items():
            for name, tensor in layer.items():
                if tensor.grad is not None:
                    found[f"{target}.{name}"], tensor.grad = tensor.grad, None
        return found


@pytest.fixture
def analyses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by the name of each method that analyses rows."""
    done: list[str] = []

    def counted(own: Any) -> Any:
        def analyse(self: Method, x: Tensor, shape: Shape, basis: Any) -> Any:
            done.append(self.name)
            return own(self, x, shape, basis)

        return analyse

    for method in METHODS:
        own = type(method).training_analyse
        monkeypatch.setattr(type(method), "training_analyse", counted(own))
    return done


def rows_of(seed: int) -> Tensor:
    return torch.randn(2, 5, 96, generator=torch.Generator().manual_seed(seed))


@each_method
def test_one_analysis_gives_the_gradients_of_dense_weights(
    method: Method, analyses: list[str]
) -> None:
    layers, x = Layers(method), rows_of(1).requires_grad_()
    probes = {path: torch.randn(2, 5, SHAPES[path].out) for path in SHAPES}
    hidden = 2 * x
    sum((layers.linears[path](hidden) * probes[path]).sum() for path in SHAPES).backward()
    assert analyses == [method.name]
    assert x.grad is not None
    found, dx = layers.gradients(), x.grad.clone()
    x.grad = None
    hidden = 2 * x
    sum((layers.dense(path, hidden) * probes[path]).sum() for path in SHAPES).backward()  # type: ignore[union-attr]
    expected = layers.gradients()
    assert relative(dx, x.grad) < _TOLERANCE
    assert set(found) == set(expected)
    for name, gradient in found.items():
        assert (gradient - expected[name]).norm() < _TOLERANCE * (1 + expected[name].norm()), name


def test_rows_of_another_place_in_the_graph_are_analysed_again(analyses: list[str]) -> None:
    layers, x = Layers(METHODS[0]), rows_of(1).requires_grad_()
    hidden = 2 * x
    with torch.no_grad():
        layers.linears["q"](hidden)
    layers.linears["q"](hidden)
    assert len(analyses) == 2  # what was analysed without a graph has no gradient
    layers.linears["v"](hidden.detach())
    assert len(analyses) == 3
    layers.linears["v"](hidden[:, :3])
    assert len(analyses) == 4
    layers.linears["k"](hidden.detach())
    hidden.detach().zero_()
    layers.linears["k"](hidden)
    assert len(analyses) == 6


def test_rows_that_were_written_over_are_analysed_again(analyses: list[str]) -> None:
    layers, x = Layers(METHODS[0]), rows_of(1)
    before = layers.linears["q"](x)
    x.mul_(2)
    assert relative(layers.linears["q"](x), 2 * before) < _TOLERANCE
    assert len(analyses) == 2


def test_dropout_draws_for_each_linear(analyses: list[str]) -> None:
    layers, x = Layers(METHODS[0], dropout=0.5), rows_of(1)
    for path in ("q", "v"):
        layers.linears[path](x)
    assert len(analyses) == 2


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_forward_pass_that_is_done_again_has_the_same_gradients(use_reentrant: bool) -> None:
    from torch.utils.checkpoint import checkpoint

    layers, x = Layers(METHODS[0]), rows_of(1).requires_grad_()

    def block(rows: Tensor) -> Tensor:
        return layers.linears["q"](rows).tanh() + layers.linears["v"](rows)

    found = []
    for run in (block, lambda rows: checkpoint(block, rows, use_reentrant=use_reentrant)):
        run(2 * x).square().sum().backward()
        assert x.grad is not None
        found.append({**layers.gradients(), "x": x.grad.clone()})
        x.grad = None
    plain, again = found
    assert set(plain) == set(again)
    for name, gradient in plain.items():
        assert torch.equal(gradient, again[name]), name
