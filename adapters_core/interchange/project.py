"""Projection of any adapter onto a spectral method: the nearest one of its kind, layer by layer.

The positions of FourierFT and WaveletFT come from a seed and know nothing of the update: of a dense
or low-rank delta they keep about as much energy as they are of all positions, n of out * in.
Several seeds differ by chance alone. LoCA chooses its positions and keeps what the largest n hold.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from adapters_core.contract.layer import Coefficients, Shape
from adapters_core.contract.method import Method
from adapters_core.format.read import Adapter
from adapters_core.interchange.fits import Fit, fitter_for
from adapters_core.layers.basis_cache import BasisCache


@dataclass(frozen=True)
class Kept:
    """How much of one layer's delta a projection keeps.

    Args:
        energy: `||delta||_F^2`.
        kept: `||projection||_F^2`, which is `energy - ||delta - projection||_F^2`.
    """

    energy: float
    kept: float

    @property
    def share(self) -> float:
        """Return `1 - ||delta - projection||^2 / ||delta||^2`; 1 for a zero delta."""
        return min(1.0, self.kept / self.energy) if self.energy else 1.0


@dataclass(frozen=True)
class Projection:
    """An adapter of another method, and what it keeps of the one that it was made from."""

    methods: Mapping[str, Method]
    layers: Mapping[str, Coefficients]
    kept: Mapping[str, Kept]

    @property
    def total(self) -> Kept:
        """Return what is kept over all layers together."""
        layers = self.kept.values()
        return Kept(sum(k.energy for k in layers), sum(k.kept for k in layers))


@dataclass(frozen=True)
class Target:
    """What to project onto.

    Args:
        candidates: one method for each seed that is tried; the best over all layers is taken.
        is_cut: whether n is cut down to what a smaller layer holds, or must fit every layer.
    """

    candidates: Sequence[Method]
    is_cut: bool = False

    def on(self, shape: Shape, number: int) -> Method:
        """Return candidate `number` on a layer of this shape.

        Raises:
            InvalidAdapter: it has more coefficients than the layer has positions.
        """
        method: Any = self.candidates[number]
        if self.is_cut and method.n > shape.out * shape.in_:
            method = replace(method, n=shape.out * shape.in_)
        method.tensors(shape)  # refuses
        assert isinstance(method, Method)
        return method


def dense_delta(
    method: Method, layer: Coefficients, shape: Shape, path: str, b: BasisCache
) -> Tensor:
    """Return a layer's update `[out, in_]`, float32, whatever its method."""
    return method.delta(layer, shape, b.get(method, shape, path, layer))


@torch.no_grad()
def project(
    adapter: Adapter,
    shapes: Mapping[str, Shape],
    bases: BasisCache,
    target: Target,
    on_layer: Callable[[str], None] = lambda path: None,
) -> Projection:
    """Return the best adapter of the target's method.

    Args:
        adapter: the source.
        shapes: path -> shape of every adapted layer.
        bases: what the source's deltas need.
        target: what to project onto.
        on_layer: told each layer's path when it is done.

    Raises:
        InvalidAdapter: nothing is projected onto this method, or n does not fit a layer; before
            anything is computed.
    """
    numbers = range(len(target.candidates))
    fitter = fitter_for(target.candidates[0])
    chosen = {path: [target.on(shapes[path], i) for i in numbers] for path in adapter.methods}
    fits: dict[str, list[Fit]] = {}
    energies = {}
    for path, method in adapter.methods.items():
        shape = shapes[path]
        delta = dense_delta(method, adapter.layers[path], shape, path, bases).double().cpu()
        energies[path] = float(delta.square().sum())
        analysed = fitter.analyse(chosen[path][0], delta)
        fits[path] = [fitter.fit(method, analysed, shape) for method in chosen[path]]
        on_layer(path)
    best = max(numbers, key=lambda i: sum(layer[i].energy for layer in fits.values()))
    return Projection(
        {path: methods[best] for path, methods in chosen.items()},
        {path: layer[best].coefficients for path, layer in fits.items()},
        {path: Kept(energies[path], layer[best].energy) for path, layer in fits.items()},
    )
