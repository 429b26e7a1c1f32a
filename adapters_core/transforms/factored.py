"""Updates that training goes through without building them: transform, sparse core, transform back.

    z = A x,     y = B^T S z,     S[rows[k], cols[k]] += values[k]

A and B analyse lines of the layer's two sides; B^T is B's own `synthesise`, its exact transpose. So
the backward pass is made of the same parts: with the incoming gradient g of each row,

    h = B g,   dvalues[k] = sum_t h[t, rows[k]] z[t, cols[k]],   dz = S^T h,   dx = A^T dz

Only z is kept for it. Layers that read the same x share z, and autograd sums their dz: so A is gone
through once forwards and once backwards, whatever their number. An update of a 1024-wide layer with
a thousand values costs two transforms a row and some thousand multiplications instead of a million.

Tensors of atoms lie as `[atoms, T]`, so that what one value reads and writes is one stretch of
memory; as many values are taken together as keep their reads in the cache.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from adapters_core.contract.layer import Shape
from adapters_core.kernels.filter_pyramid import Pyramid
from adapters_core.transforms.cosine import CosineTable, dct, idct

#: Numbers that one gather makes at a time: a megabyte, which stays in the cache.
_AT_ONCE = 1 << 18

#: With fewer cells than this for each value, a dense product is faster; measured on a CPU, where
#: both cost the same between 50 and 100.
_CELLS_A_VALUE = 64


class Line(Protocol):
    """A linear map of lines of `size` numbers, and its transpose."""

    def analyse(self, x: Tensor) -> Tensor:
        """Return A x for the rows x `[T, size]`: `[T, atoms]`."""

    def synthesise(self, z: Tensor) -> Tensor:
        """Return A^T z for the rows z `[T, atoms]`: `[T, size]`."""

    def num_atoms(self) -> int:
        """Return how many atoms a line has."""


@dataclass(frozen=True)
class PlainLine:
    """Changes nothing."""

    size: int

    def analyse(self, x: Tensor) -> Tensor:
        """Return x."""
        return x

    def synthesise(self, z: Tensor) -> Tensor:
        """Return z."""
        return z

    def num_atoms(self) -> int:
        """Return the size."""
        return self.size


@dataclass(frozen=True)
class CosineLine:
    """The orthonormal cosine transform."""

    table: CosineTable

    def analyse(self, x: Tensor) -> Tensor:
        """Return the cosine transform of each row."""
        return dct(x, self.table)

    def synthesise(self, z: Tensor) -> Tensor:
        """Return the inverse, which is the transpose."""
        return idct(z, self.table)

    def num_atoms(self) -> int:
        """Return the size."""
        return self.table.size


@dataclass(frozen=True)
class WaveletLine:
    """Products with a pyramid's atoms, and their sums."""

    pyramid: Pyramid
    size: int

    def analyse(self, x: Tensor) -> Tensor:
        """Return each row's products with all atoms."""
        return self.pyramid.analyse(x)

    def synthesise(self, z: Tensor) -> Tensor:
        """Return the sum of the atoms."""
        return self.pyramid.synthesise(z, self.size)

    def num_atoms(self) -> int:
        """Return the number of atoms on all levels."""
        return self.pyramid.num_atoms(self.size)


@dataclass(frozen=True)
class FourierLine:
    """The half spectrum of real lines: re and im of frequency f are atoms 2 f and 2 f + 1."""

    size: int

    def analyse(self, x: Tensor) -> Tensor:
        """Return sum_q x[q] cos(2 pi f q / N) and minus the same with the sine."""
        return torch.view_as_real(torch.fft.rfft(x)).flatten(-2)

    def synthesise(self, z: Tensor) -> Tensor:
        """Return sum_f z[2 f] cos(2 pi f q / N) - z[2 f + 1] sin(2 pi f q / N)."""
        half = torch.view_as_complex(z.contiguous().view(*z.shape[:-1], -1, 2)) * 0.5
        # An inverse transform counts all frequencies twice but these, whose conjugates they are.
        ends = [0, self.size // 2] if self.size % 2 == 0 and self.size > 1 else [0]
        half[:, ends] *= 2
        return torch.fft.irfft(half, n=self.size, norm="forward")

    def num_atoms(self) -> int:
        """Return two for each frequency of the half spectrum."""
        return 2 * (self.size // 2 + 1)


@dataclass(frozen=True)
class Core:
    """Where the values of a sparse core stand, and the line behind it.

    Args:
        out: the line of the layer's outputs.
        rows, cols: int64 `[K]`, the atom that each value writes and the one it reads.
    """

    out: Line
    rows: Tensor
    cols: Tensor


def is_narrow(shape: Shape, num_values: int) -> bool:
    """Return whether building the update costs less than going round it with so many values."""
    return shape.out * shape.in_ < _CELLS_A_VALUE * num_values


def analysed(x: Tensor, line: Line, dtype: torch.dtype) -> Tensor:
    """Return the atoms of the rows x `[T, size]` as `[atoms, T]` in `dtype`; differentiable."""
    result: Tensor = _Analysed.apply(x, line, dtype)  # type: ignore[no-untyped-call]
    return result


def through_core(z: Tensor, values: Tensor, core: Core) -> Tensor:
    """Return rows with the atoms z `[atoms, T]` through the update: `[T, out]`, in z's dtype.

    Differentiable in z and in values `[K]`, which are of one dtype.
    """
    result: Tensor = _Through.apply(z, values, None, core)  # type: ignore[no-untyped-call]
    return result


def through_learned(z: Tensor, values: Tensor, positions: Tensor, core: Core) -> Tensor:
    """Through a core with positions `[2, K]` that are learned too; the core has them rounded.

    With K = B g x^T A^T the gradient of the whole core, a row's position has the gradient

        clamp( values[k] / 2 (K[r + 1, c] - K[r - 1, c]), -1, 1 )

    as transforms/cosine_sums.py gives it; and so have columns.
    """
    result: Tensor = _Through.apply(z, values, positions, core)  # type: ignore[no-untyped-call]
    return result


class _Analysed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, line: Line, dtype: torch.dtype) -> Tensor:
        ctx.line, ctx.x_dtype = line, x.dtype
        return _atoms(line, x, dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.line.synthesise(gradients[0].T).to(ctx.x_dtype), None, None


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, values: Tensor, positions: Tensor | None, core: Core
    ) -> Tensor:
        ctx.save_for_backward(z, values)
        ctx.core = core
        sums = _sparse(z, values, core.cols, core.rows, core.out.num_atoms())
        return core.out.synthesise(sums.T)

    @staticmethod
    def backward(
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        z, values = ctx.saved_tensors
        core = ctx.core
        h = _atoms(core.out, gradients[0], values.dtype)
        dz = dvalues = dplaces = None
        if ctx.needs_input_grad[1]:
            dvalues = _products(h, z, core.rows, core.cols)
        if ctx.needs_input_grad[2]:
            dplaces = _slopes(h, z, core) * (values / 2)
            dplaces = dplaces.clamp(-1, 1)
        if ctx.needs_input_grad[0]:
            dz = _sparse(h, values, core.rows, core.cols, z.shape[0])
        return dz, dvalues, dplaces, None


def _slopes(h: Tensor, z: Tensor, core: Core) -> Tensor:
    """Return K's differences between the neighbours of each position, along rows and columns."""
    rows, cols = core.rows, core.cols
    above, below = (rows - 1).clamp(min=0), (rows + 1).clamp(max=h.shape[0] - 1)
    left, right = (cols - 1).clamp(min=0), (cols + 1).clamp(max=z.shape[0] - 1)
    along_rows = _products(h, z, below, cols) - _products(h, z, above, cols)
    along_cols = _products(h, z, rows, right) - _products(h, z, rows, left)
    return torch.stack([along_rows, along_cols])


def _atoms(line: Line, x: Tensor, dtype: torch.dtype) -> Tensor:
    return line.analyse(x.to(dtype)).T.contiguous()


def _sparse(z: Tensor, values: Tensor, read: Tensor, written: Tensor, num_atoms: int) -> Tensor:
    """Return what the values send from the atoms `read` to `written`: `[num_atoms, T]`."""
    sums = z.new_zeros(num_atoms, z.shape[1])
    for piece in _pieces(z, read):
        part = z.index_select(0, read[piece]).mul_(values[piece, None])
        sums.index_add_(0, written[piece], part)
    return sums


def _products(h: Tensor, z: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Return `sum_t h[rows[k], t] z[cols[k], t]` for every k."""
    return torch.cat(
        [
            torch.linalg.vecdot(h.index_select(0, rows[piece]), z.index_select(0, cols[piece]))
            for piece in _pieces(z, cols)
        ]
    )


def _pieces(z: Tensor, positions: Tensor) -> Iterator[slice]:
    step = max(1, _AT_ONCE // z.shape[1])
    for start in range(0, len(positions), step):
        yield slice(start, start + step)
