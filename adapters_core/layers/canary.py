"""Proves at start that this machine computes the transforms right, else routes round or refuses.

float32 `torch.fft.ifft2` of 2048 x 2048 on a CPU with two threads applies its normalisation twice
(pytorch issue 169670): the adapter silently becomes the base. No transform is trusted because it
ought to be right: for every shape of the base each method's fast ways are held against its
defining sum, on this device and with this number of threads.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters_core.contract.method import Method, Rows, Segment, Shape
from adapters_core.contract.method_registry import registered
from adapters_core.errors import CanaryFailed
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.merge import begun_merge

_CELLS = 64
_ROWS = 5
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class CanaryReport:
    """What was checked, and the shapes that had to be routed through float64."""

    checked: int
    rerouted: tuple[tuple[str, Shape], ...]


def usual_methods() -> list[Method]:
    """Return every registered method with its default hyper-parameters.

    Those with a basis that is made from the base's weights prove it when they make it.
    """
    return [kind() for kind in registered().values() if not kind.needs_base]


@torch.inference_mode()
def run_canary(
    probes: Iterable[Method],
    shapes: Iterable[Shape],
    bases: BasisCache,
    report: Callable[[float], None] = lambda share: None,
) -> CanaryReport:
    """Check every probe on every shape; routes are entered into `bases`.

    Args:
        probes: one method of each kind, such as `usual_methods()`.
        shapes: the base's.
        bases: the cache whose routes are tested and, where needed, changed.
        report: told which share of the checks is done, 0..1.

    Raises:
        CanaryFailed: a method is wrong on every route; names method, shape and error. Or there is
            no method: nothing would be checked.
    """
    probes, rerouted, checked = list(probes), [], 0
    if not probes:
        raise CanaryFailed("no method is registered, so no transform was checked")
    shapes = sorted(set(shapes))
    for shape in shapes:
        for probe in probes:
            method = probe.fitted(shape)
            report(checked / (len(shapes) * len(probes)))
            checked += 1
            if worst_error(method, shape, bases) <= _TOLERANCE:
                continue
            bases.use_float64(method.name, shape)
            rerouted.append((method.name, shape))
            error = worst_error(method, shape, bases)
            if not error <= _TOLERANCE:
                raise CanaryFailed(
                    f"{method.name} on {shape.out} x {shape.in_} is wrong by {error:.1e} of its "
                    "norm in float32 and in float64; run `overtone doctor` and try another torch"
                )
    return CanaryReport(checked, tuple(rerouted))


def worst_error(method: Method, shape: Shape, bases: BasisCache) -> float:
    """Return the largest relative error of the fast ways against the defining sum."""
    generator = torch.Generator().manual_seed(0)
    layers = [_random_layer(method, shape, generator) for _ in range(2)]
    rows = torch.randint(shape.out, (_CELLS,), generator=generator)
    cols = torch.randint(shape.in_, (_CELLS,), generator=generator)
    true = torch.stack([method.cells(layer, shape, rows, cols) for layer in layers])
    on_device = [{k: v.to(bases.device) for k, v in layer.items()} for layer in layers]
    basis = bases.get(method, shape)
    deltas = method.delta_many(on_device, shape, basis)
    fast = torch.stack([delta[rows, cols] for delta in deltas.cpu()])
    # Merging may go its own way: onto zeros it writes the delta.
    zeros = torch.zeros_like(deltas[0])
    merged = torch.full_like(deltas, torch.nan)
    golden, out = [zeros] * len(merged), list(merged)
    for part in begun_merge(method, on_device, golden, out, shape, basis):
        part()
    written = torch.stack([weight[rows, cols] for weight in merged.cpu()])
    return max(
        _relative(fast, true),
        _relative(written, true),
        _batch_error(method, shape, bases, layers, deltas),
    )


def _batch_error(
    method: Method, shape: Shape, bases: BasisCache, layers: list[dict[str, Tensor]], deltas: Tensor
) -> float:
    """Return how far `apply` is from the (already checked) dense deltas, decode and prefill."""
    bank = Bank(Layout.of({"": method}, {"": shape}), bases, slots=2)
    slots = [bank.add(bank.pack({"": method}, {"": layer})) for layer in layers]
    picked = torch.tensor([0, 1, 0, 1, 1][:_ROWS])
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(_ROWS, shape.in_, generator=generator).to(bases.device)
    rows = Rows(torch.tensor(slots)[picked].to(bases.device), 3, (Segment(3, _ROWS, slots[1]),))
    got = bank.apply("", x, rows)
    assert got is not None
    true = torch.stack([deltas[slot] @ row for slot, row in zip(picked, x, strict=True)])
    return _relative(got, true)


def _random_layer(method: Method, shape: Shape, generator: torch.Generator) -> dict[str, Tensor]:
    return {
        name: torch.randn(fresh.shape, generator=generator) if fresh.is_floating_point() else fresh
        for name, fresh in method.init(shape, generator).items()
    }


def _relative(got: Tensor, true: Tensor) -> float:
    wrong, norm = (got.double() - true.double()).norm(), true.double().norm()
    if wrong == 0:
        return 0.0  # a sparse delta may be zero at every cell that was looked at
    error = float(wrong / norm)
    return error if math.isfinite(error) else math.inf  # max() would pass over a NaN
