"""Orthonormal wavelet filters, and one level of their filter bank along a tensor's last dimension.

    full[2 i + k] += filter[k] * z[i],   line = full[L - 2 : L - 2 + size],   L taps

Half of z goes through the low-pass filter, half through the high-pass; each entry of z is an
`atom`, L numbers of the line, of which an edge may cut some off.

Daubechies filters come from spectral factorisation (Daubechies 1988, "Orthonormal bases of
compactly supported wavelets", section 4): with N vanishing moments |H|^2 = cos^2N * P(sin^2), P of
degree N - 1; a root of P gives a pair z, 1 / z, of which a filter takes one. `db` takes all inside
the unit circle, `sym` a mixture that is nearly symmetric (which one is a convention; ours is that
of PyWavelets and PEFT, as are sign and direction). Coiflets solve no such equation and are listed.
Only element-wise operations are used, so a row's bits do not depend on the other rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_MAX_MOMENTS = 10
#: Moments -> which roots of P, by size, stand outside the unit circle.
_SYM_OUTSIDE: dict[int, tuple[int, ...]] = {
    2: (),
    3: (),
    4: (1,),
    5: (0,),
    6: (0, 2),
    7: (0,),
    8: (1, 3),
    9: (1, 2),
    10: (0, 2, 4),
}
_COIFLETS: dict[str, tuple[float, ...]] = {
    "coif1": (
        *(-0.07273261951252645, 0.3378976624574818, 0.8525720202116004, 0.3848648468648578),
        *(-0.07273261951252645, -0.015655728135791993),
    ),
    "coif2": (
        *(0.01638733646320364, -0.04146493678687178, -0.0673725547237256, 0.3861100668227629),
        *(0.8127236354494135, 0.4170051844232391, -0.07648859907828076, -0.05943441864643109),
        *(0.02368017194684777, 0.005611434819368834, -0.0018232088709110323),
        -0.000720549445520347,
    ),
    "coif3": (
        *(-0.003793512864380802, 0.007782596425672746, 0.023452696142077168),
        *(-0.06577191128146936, -0.06112339000297255, 0.40517690240911824),
        *(0.7937772226260872, 0.42848347637737, -0.07179982161915484, -0.08230192710629983),
        *(0.03455502757329774, 0.015880544863669452, -0.009007976136730624),
        *(-0.0025745176881367972, 0.0011175187708306303, 0.0004662169598204029),
        *(-7.0983302506379e-05, -3.459977319727278e-05),
    ),
}
#: Every wavelet that `wavelet_bank` knows.
WAVELETS = (
    *(f"db{k}" for k in range(1, _MAX_MOMENTS + 1)),
    *(f"sym{k}" for k in _SYM_OUTSIDE),
    *_COIFLETS,
)


@dataclass(frozen=True)
class FilterBank:
    """One level of synthesis along a line; with no filters at all it changes nothing."""

    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @property
    def taps(self) -> int:
        """Return how many cells of the line an atom covers."""
        return max(1, len(self.low))

    def num_atoms(self, size: int) -> int:
        """Return how many atoms a line of `size` has: half of them low-pass, half high-pass."""
        if not self.low:
            return size
        padded = size + self.taps - 2
        return padded + padded % 2

    def analyse(self, x: Tensor) -> Tensor:
        """Return every atom's inner product with x `[..., size]`: `[..., num_atoms]`."""
        if not self.low:
            return x
        size = x.shape[-1]
        num_atoms, before = self.num_atoms(size), self.taps - 2
        x = torch.nn.functional.pad(x, (before, num_atoms - size))
        shifted = [x[..., k : k + num_atoms - 1 : 2] for k in range(self.taps)]
        return torch.cat([_combined(self.low, shifted), _combined(self.high, shifted)], dim=-1)

    def synthesise(self, z: Tensor, size: int) -> Tensor:
        """Return the sum of the atoms times z `[..., num_atoms]`: `[..., size]`."""
        if not self.low:
            return z
        low, high = z.chunk(2, dim=-1)
        half, back = (size + 1) // 2, self.taps // 2 - 1
        shifted = [
            part[..., back - j :][..., :half] for part in (low, high) for j in range(back + 1)
        ]
        even = _combined((*self.low[0::2], *self.high[0::2]), shifted)
        odd = _combined((*self.low[1::2], *self.high[1::2]), shifted)
        return torch.stack([even, odd], dim=-1).flatten(-2)[..., :size]


def wavelet_bank(name: str) -> FilterBank:
    """Return the synthesis filters of one of `WAVELETS`, right to 1e-12."""
    low = _COIFLETS.get(name) or _factored(name)
    return FilterBank(low, tuple((-1) ** k * value for k, value in enumerate(low[::-1])))


def _combined(weights: Sequence[float], tensors: Sequence[Tensor]) -> Tensor:
    total = weights[0] * tensors[0]
    for weight, tensor in zip(weights[1:], tensors[1:], strict=True):
        total = total + weight * tensor
    return total


def _factored(name: str) -> tuple[float, ...]:
    """Return the low-pass filter of a `db` or `sym` wavelet."""
    moments = int(name.lstrip("dbsym"))
    outside = _SYM_OUTSIDE[moments] if name.startswith("sym") else ()
    powers = [math.comb(moments - 1 + k, k) for k in range(moments)]
    roots = [root for root in np.roots(powers[::-1]) if root.imag > -1e-9]
    low = np.ones(1, dtype=np.complex128)
    for number, root in enumerate(sorted(roots, key=abs)):
        cosine = 1 - 2 * root  # root = sin^2(w / 2) = (2 - z - 1 / z) / 4
        z = cosine + np.sqrt(cosine * cosine - 1 + 0j)
        z = z if (abs(z) > 1) == (number in outside) else 1 / z
        pair = [z] if abs(root.imag) < 1e-9 else [z, z.conjugate()]
        for one in pair:
            low = np.convolve(low, [1, -one])
    for _ in range(moments):
        low = np.convolve(low, [0.5, 0.5])
    return tuple((math.sqrt(2) * low.real / low.real.sum()).tolist())
