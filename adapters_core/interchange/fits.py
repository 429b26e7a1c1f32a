"""Least squares: the coefficients of a spectral method that come nearest to a given dense update.

    min over c of || delta - sum_l c_l atom_l ||_F

An atom is the delta of one unit coefficient. Where atoms coincide, of all the best solutions the
one of smallest norm is taken.

- LoCA chooses its positions: cosine atoms are orthonormal, so the best n are the n largest
  of the two-dimensional DCT.
- FourierFT's atoms are cosines at seeded positions, so real that (j, k) and (-j, -k) are one and
  the same; different ones are orthogonal. With R = Re(fft2(delta)), an atom that stands m times has
  c = w R / (m scale), w = 1 where (j, k) is its own mirror image and 2 elsewhere.
- WaveletFT's atoms are orthonormal but where an edge of the layer cuts them; there the equations
  are solved by conjugate gradients.

Transforms run in float64, one-dimensional and unscaled (see methods/fourierft.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method
from adapters_core.errors import InvalidAdapter
from adapters_core.methods.fourierft import FourierFT
from adapters_core.methods.loca import LoCA
from adapters_core.methods.waveletft import WaveletFT
from adapters_core.positions.seeded import flat_positions
from adapters_core.transforms.cosine import cosine_table, dct

_CPU = torch.device("cpu")
_WAVELETS = "waveft_spectrum"
#: A step of the solver that takes up no more of the delta's energy is the last one.
_NO_GAIN, _MAX_STEPS, _PROBES = 1e-13, 200, 6


class Fit(NamedTuple):
    """A layer's coefficients as the file holds them, and the squared norm of their delta."""

    coefficients: dict[str, Tensor]
    energy: float


@dataclass(frozen=True)
class Fitter:
    """How a method is fitted: one analysis of a delta serves every seed.

    Args:
        analyse: (method, delta `[out, in_]` float64) -> what `fit` reads.
        fit: (method, analysed, shape) -> the best coefficients.
    """

    analyse: Callable[[Any, Tensor], Tensor]
    fit: Callable[[Any, Tensor, Shape], Fit]


def fitter_for(method: Method) -> Fitter:
    """Return how `method` is fitted.

    Raises:
        InvalidAdapter: it cannot be fitted, or every delta of it is zero.
    """
    found = _FITTERS.get(method.name)
    if found is None:
        message = f"nothing is projected onto {method.name}; onto {', '.join(FITTED)}"
        raise InvalidAdapter(message, "to")
    if getattr(method, "scale", 1.0) == 0:
        raise InvalidAdapter("scale = 0 makes every update zero", "scaling")
    return found


def _cosine_map(method: LoCA, delta: Tensor) -> Tensor:
    """Return the orthonormal two-dimensional DCT of the delta."""
    rows, cols = (cosine_table(size, _CPU, torch.float64) for size in delta.shape)
    return dct(dct(delta.T, rows).T, cols)


def _largest(method: LoCA, values: Tensor, shape: Shape) -> Fit:
    flat = values.abs().view(-1).topk(method.n, sorted=False).indices.sort().values
    best = values.view(-1)[flat]
    positions = torch.stack([flat // shape.in_, flat % shape.in_]).int()
    spectrum = (best / method.scale).float()
    return Fit({"loca_spectrum": spectrum, "loca_locations": positions}, float(best.square().sum()))


def _fourier_map(method: FourierFT, delta: Tensor) -> Tensor:
    """Return Re(fft2(delta)) for the columns 0..N/2."""
    return torch.fft.fft(torch.fft.rfft(delta), dim=0).real


def _at_fourier_positions(method: FourierFT, real: Tensor, shape: Shape) -> Fit:
    flat = flat_positions(method.seed, method.n, shape.out * shape.in_)
    rows, cols = flat // shape.in_, flat % shape.in_
    mirror = (-rows % shape.out) * shape.in_ + -cols % shape.in_
    # The mirror image of a column beyond the half has the same real part.
    half = torch.where(cols > shape.in_ // 2, mirror, flat)
    values = real[half // shape.in_, half % shape.in_]
    _, which, counts = torch.unique(
        torch.minimum(flat, mirror), return_inverse=True, return_counts=True
    )
    weights = torch.where(flat == mirror, 1.0, 2.0) / counts[which]
    spectrum = weights * values / method.scale
    energy = (weights * values.square()).sum() / (shape.out * shape.in_)
    return Fit({"fourierft_spectrum": spectrum.float()}, float(energy))


def _as_it_is(method: Method, delta: Tensor) -> Tensor:
    return delta


def _solved(method: WaveletFT, delta: Tensor, shape: Shape) -> Fit:
    """Return the least squares solution by conjugate gradients, from the method's own delta.

    CGLS (Hestenes and Stiefel 1952) from zero; atoms that no edge cuts are solved in one step, the
    cut ones in a few. Björck 1996, "Numerical Methods for Least Squares Problems", section 7.4.
    """
    update = _LinearDelta(method, shape)
    values = torch.zeros(method.n, dtype=torch.float64)
    residual, energy = delta.clone(), float(delta.square().sum())
    scales = update.scales()
    gradient = scales * update.adjoint(residual)
    step, size = gradient, float(gradient @ gradient)
    for _ in range(_MAX_STEPS):
        image = update(scales * step)
        stretch = float(image.square().sum())
        if stretch == 0.0:
            break
        length = size / stretch
        values += length * scales * step
        residual -= length * image
        if length * size <= _NO_GAIN * energy:
            break
        gradient = scales * update.adjoint(residual)
        before, size = size, float(gradient @ gradient)
        step = gradient + size / before * step
    spectrum = values.float()
    left = float((delta - update(spectrum.double())).square().sum())
    return Fit({_WAVELETS: spectrum}, energy - left)


class _LinearDelta:
    """A method's delta as a linear map of its coefficients, and the map's transpose."""

    def __init__(self, method: WaveletFT, shape: Shape) -> None:
        self._method, self._shape = method, shape
        self._basis = method.basis(shape, _CPU, torch.float64)
        self._inputs = torch.zeros(method.n, dtype=torch.float64, requires_grad=True)
        with torch.enable_grad():
            self._graph = method.delta({_WAVELETS: self._inputs}, shape, self._basis)

    def __call__(self, values: Tensor) -> Tensor:
        """Return the delta `[out, in_]` of coefficients `[n]`, float64."""
        return self._method.delta({_WAVELETS: values}, self._shape, self._basis).double()

    def adjoint(self, dense: Tensor) -> Tensor:
        """Return every atom's inner product with `[out, in_]`: `[n]` float64."""
        dense = dense.to(self._graph.dtype)
        (products,) = torch.autograd.grad(self._graph, self._inputs, dense, retain_graph=True)
        return products

    def scales(self) -> Tensor:
        """Return about one over each atom's norm, `[n]`, so that cut atoms weigh like whole ones.

        An atom's inner product with noise has the atom's norm for its standard deviation.
        """
        generator = torch.Generator().manual_seed(0)
        squares = torch.zeros(self._inputs.shape, dtype=torch.float64)
        for _ in range(_PROBES):
            squares += self.adjoint(torch.randn(self._shape, generator=generator)).square()
        return torch.where(squares > 0, (_PROBES / squares).sqrt(), 0.0)


_FITTERS = {
    FourierFT.name: Fitter(_fourier_map, _at_fourier_positions),
    LoCA.name: Fitter(_cosine_map, _largest),
    WaveletFT.name: Fitter(_as_it_is, _solved),
}
#: The names of the methods that a dense update can be projected onto.
FITTED = tuple(_FITTERS)
