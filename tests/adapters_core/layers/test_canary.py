"""The canary: wrong transforms are routed round or refused, never served."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from adapters_core.contract.method import PackedLayer, Rows, Shape
from adapters_core.contract.method_registry import registered
from adapters_core.errors import CanaryFailed
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.canary import run_canary, usual_methods, worst_error
from adapters_core.methods import FourierFT, LoRA

SHAPES = [Shape(96, 96), Shape(32, 96), Shape(45, 77)]


@dataclass(frozen=True)
class Faulty(FourierFT):
    """FourierFT on a machine where `fault` is done to one function, in these dtypes."""

    fault: str = "delta"
    dtypes: tuple[torch.dtype, ...] = (torch.float32,)
    shapes: tuple[Shape, ...] = tuple(SHAPES)

    def _spoilt(self, result: Tensor, what: str, shape: Shape, basis: object) -> Tensor:
        kind, _, how = self.fault.partition(" ")
        if kind != what or basis.dtype not in self.dtypes or shape not in self.shapes:
            return result
        if how == "NaN":
            return torch.full_like(result, torch.nan)
        if how == "one percent":
            return result * 1.01
        return result / (shape.out * shape.in_)  # the normalisation twice

    def delta_many(self, layers: object, shape: Shape, basis: object) -> Tensor:
        return self._spoilt(super().delta_many(layers, shape, basis), "delta", shape, basis)

    def merge_many(
        self, layers: object, golden: object, out: list[Tensor], shape: Shape, basis: object
    ) -> None:
        super().merge_many(layers, golden, out, shape, basis)
        for weight in out:
            weight.copy_(self._spoilt(weight.clone(), "merge", shape, basis))

    def merge_parts(
        self, layers: object, golden: object, out: list[Tensor], shape: Shape, basis: object
    ) -> list[Callable[[], None]]:
        return [lambda: self.merge_many(layers, golden, out, shape, basis)]

    def apply(
        self, x: Tensor, layer: PackedLayer, rows: Rows, shape: Shape, basis: object
    ) -> Tensor:
        return self._spoilt(super().apply(x, layer, rows, shape, basis), "apply", shape, basis)


FAULTS = [
    f"{way}{how}" for way in ("delta", "merge", "apply") for how in ("", " NaN", " one percent")
]


def test_this_machine_passes(bases: BasisCache) -> None:
    report = run_canary([FourierFT(n=60), LoRA(r=3)], [*SHAPES, SHAPES[0]], bases)
    assert report.checked == 6
    assert report.rerouted == ()


def test_every_registered_method_is_checked_on_shapes_of_a_few_cells(bases: BasisCache) -> None:
    report = run_canary(usual_methods(), [Shape(3, 5), Shape(1, 7)], bases)
    # Methods that need the base's weights have no layer of these shapes.
    alone = [kind for kind in registered().values() if not kind.needs_base]
    assert report.checked == 2 * len(alone)


def test_the_error_of_right_transforms_is_rounding(bases: BasisCache) -> None:
    for shape in SHAPES:
        assert worst_error(FourierFT(n=60), shape, bases) < 1e-5
        assert worst_error(LoRA(r=3), shape, bases) < 1e-5


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_in_float32_alone_is_routed_round(fault: str, bases: BasisCache) -> None:
    wrong = Faulty(n=60, fault=fault, shapes=(Shape(32, 96),))
    report = run_canary([wrong, LoRA(r=3)], SHAPES, bases)
    assert report.rerouted == (("fourierft", Shape(32, 96)),)
    assert bases.get(wrong, Shape(32, 96)).dtype == torch.float64
    assert bases.get(wrong, Shape(96, 96)).dtype == torch.float32
    assert worst_error(wrong, Shape(32, 96), bases) < 1e-5


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_on_every_route_is_refused(fault: str, bases: BasisCache) -> None:
    wrong = Faulty(n=60, fault=fault, dtypes=(torch.float32, torch.float64))
    with pytest.raises(CanaryFailed, match="fourierft on 32 x 96") as caught:
        run_canary([wrong], [Shape(32, 96)], bases)
    assert caught.value.code == "not_ready"


def test_2048_with_two_threads_is_quick_enough_to_run_at_every_start(bases: BasisCache) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        start = time.process_time()
        report = run_canary([FourierFT(n=1000), LoRA()], [Shape(2048, 2048)], bases)
        assert time.process_time() - start < 20  # of two threads
    finally:
        torch.set_num_threads(before)
    assert report.rerouted == ()
