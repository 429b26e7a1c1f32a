"""LoCA: a few cosine coefficients of the update, at places that training chose for each layer.

    delta = scale * idct2( S ),   S[rows[k], cols[k]] += spectrum[k], else 0

    delta[p, q] = scale * sum_k a_k u_M(rows[k], p) u_N(cols[k], q)
    u_N(k, t) = sqrt(2/N) cos( pi (2t + 1) k / (2N) ),  u_N(0, t) = sqrt(1/N)

Du et al. 2025, arXiv:2502.06820 (ICLR): delta = alpha C^T S(a, l, 1) D with orthonormal DCT-II
matrices C and D. The paper's body and the authors' repository could not be had, so no equation
number stands here: the formula is that of the authors' layer as another project carries it.
Choices: orthonormal both ways, so one unit of a coefficient has Frobenius norm `scale` whatever
the layer's size; coefficients at one place add, as in the authors' sparse matrix. Fresh
coefficients are zero and their places drawn without repetition (the authors' may repeat).

The file is our own, `loca_spectrum` `[n]` and `loca_locations` `[2, n]`, rows then columns of
`[out, in]`, as integers: the names and the floating positions that the authors' code writes are
not verified, and a position is only what it rounds to. Choosing places is training's business;
here they are fixed, and `delta` is differentiable in the spectrum alone.

Fast ways. The first transform runs over the columns that hold a coefficient. For a batch, the
rows are transformed, gathered, multiplied and scattered, each at the places of its own slot
(kernels/located.py), and transformed back; so places are packed beside their coefficients.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from adapters_core.errors import InvalidAdapter
from adapters_core.kernels import located_rows
from adapters_core.kernels.located import EXACT_INTEGERS
from adapters_core.method import (
    Coefficients,
    Method,
    PackedLayer,
    Rows,
    Shape,
    Site,
    TensorSpec,
)
from adapters_core.peft_config import Pattern, PeftConfig
from adapters_core.places import flat_places
from adapters_core.rows import pad_rows
from adapters_core.table import register
from adapters_core.transforms import CosineTable, cosine_table, cosines, dct, idct

_SPECTRUM, _LOCATIONS = "loca_spectrum", "loca_locations"


@dataclass(frozen=True)
class CosineBasis:
    """What all LoCA adapters share on layers of one shape: the transforms' tables and dtype."""

    out: CosineTable
    in_: CosineTable
    device: torch.device
    dtype: torch.dtype


@register
@dataclass(frozen=True)
class LoCA(Method):
    """Args: n: coefficients a layer, 1..out*in. scale: alpha."""

    n: int = 1000
    scale: float = 1.0

    name: ClassVar[str] = "loca"
    peft_type: ClassVar[str] = "LOCA"
    pattern_fields: ClassVar[Mapping[str, str]] = {"n_frequency": "n_frequency_pattern"}
    peft_fields: ClassVar[frozenset[str]] = frozenset(
        {"n_frequency", "n_frequency_pattern", "scaling"}
    )

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InvalidAdapter(f"n_frequency = {self.n}: at least 1 is needed", "n_frequency")
        if not math.isfinite(self.scale):
            raise InvalidAdapter(f"scaling = {self.scale} is not a finite number", "scaling")

    @classmethod
    def from_peft(cls, config: PeftConfig, target: str, tensors: Mapping[str, Any]) -> Self:
        pattern = Pattern("n_frequency_pattern", r".*\.{key}$")
        n = config.integer("n_frequency", 1000, pattern, target)
        return cls(n, config.number("scaling", 1.0))

    def to_peft(self) -> dict[str, Any]:
        return {"n_frequency": self.n, "scaling": self.scale}

    def tensors(self, shape: Shape) -> dict[str, TensorSpec]:
        if self.n > shape.out * shape.in_:
            raise InvalidAdapter(
                f"n_frequency = {self.n}, but the layer has {shape.out} x {shape.in_} places",
                "n_frequency",
            )
        return {
            _SPECTRUM: TensorSpec((self.n,)),
            _LOCATIONS: TensorSpec((2, self.n), floating=False),
        }

    def check(self, coefficients: Coefficients, shape: Shape) -> None:
        if max(shape) > EXACT_INTEGERS:
            raise InvalidAdapter(f"a layer of {shape.out} x {shape.in_} is too wide", _LOCATIONS)
        if coefficients[_LOCATIONS].is_floating_point():
            raise InvalidAdapter("places are integers", _LOCATIONS)
        for what, places, size in zip(("row", "column"), _places(coefficients), shape, strict=True):
            low, high = (int(bound) for bound in places.aminmax())
            if low < 0 or high >= size:
                wrong = low if low < 0 else high
                raise InvalidAdapter(f"{what} {wrong} is not in 0..{size - 1}", _LOCATIONS)

    def init(
        self, shape: Shape, generator: torch.Generator, basis: Any = None
    ) -> dict[str, Tensor]:
        seed = int(torch.randint(2**32, (1,), generator=generator))
        flat = flat_places(seed, self.n, shape.out * shape.in_)
        places = torch.stack([flat // shape.in_, flat % shape.in_])
        return {_SPECTRUM: torch.zeros(self.n), _LOCATIONS: places.int()}

    def delta(self, coefficients: Coefficients, shape: Shape, basis: CosineBasis) -> Tensor:
        return self.delta_many([coefficients], shape, basis)[0]

    def delta_many(
        self, layers: Sequence[Coefficients], shape: Shape, basis: CosineBasis
    ) -> Tensor:
        values = torch.stack([layer[_SPECTRUM] for layer in layers]).to(basis.dtype) * self.scale
        rows, cols = torch.stack([_places(layer) for layer in layers], dim=1)  # each [L, n]
        # A column of one layer is a row here; only those that hold a coefficient are transformed.
        first = torch.arange(len(layers), device=cols.device)[:, None] * shape.in_
        columns, inverse = torch.unique(first + cols, return_inverse=True)
        cells = values.new_zeros(columns.numel() * shape.out)
        cells = cells.index_add(0, (inverse * shape.out + rows).view(-1), values.view(-1))
        waves = idct(cells.view(-1, shape.out), basis.out)
        full = values.new_zeros(len(layers), shape.out, shape.in_)
        full[columns // shape.in_, :, columns % shape.in_] = waves
        return idct(full, basis.in_).float()

    def cells(
        self,
        coefficients: Coefficients,
        shape: Shape,
        rows: Tensor,
        cols: Tensor,
        basis: Any = None,
    ) -> Tensor:
        row_places, col_places = _places(coefficients)
        waves = cosines(rows, row_places, shape.out) * cosines(cols, col_places, shape.in_)
        return self.scale * (waves @ coefficients[_SPECTRUM].double())

    def signature(self, shape: Shape) -> Hashable:
        return (self.name, self.n)

    def packed_length(self, shape: Shape) -> int:
        return 3 * self.n

    def pack(self, coefficients: Coefficients, shape: Shape, basis: CosineBasis) -> Tensor:
        self.check(coefficients, shape)  # the compiled loop trusts the places
        spectrum = self.scale * coefficients[_SPECTRUM].float()
        places = _places(coefficients).float().view(-1)
        return torch.cat([spectrum.to(basis.device), places.to(basis.device)])

    def analysis_key(self, shape: Shape) -> Hashable:
        return ("cosines", shape.in_)

    def analyse(self, x: Tensor, shape: Shape, basis: CosineBasis) -> Tensor:
        """Return the cosine transforms of x and of rows that pad it: `[T + ..., in_]`."""
        return dct(pad_rows(x.to(basis.dtype)), basis.in_)

    def apply(
        self, x: Tensor, layer: PackedLayer, rows: Rows, shape: Shape, basis: CosineBasis
    ) -> Tensor:
        core = located_rows(x, layer, pad_rows(rows.slots), shape.out)
        return idct(core, basis.out)[: rows.slots.shape[0]]

    def fitted(self, shape: Shape) -> Self:
        return replace(self, n=min(self.n, shape.out * shape.in_))

    def basis(
        self, shape: Shape, device: torch.device, dtype: torch.dtype, site: Site | None = None
    ) -> CosineBasis:
        out, in_ = (cosine_table(size, device, dtype) for size in shape)
        return CosineBasis(out, in_, device, dtype)

    def is_zero(self, coefficients: Coefficients) -> bool:
        return not bool(coefficients[_SPECTRUM].any())


def _places(coefficients: Coefficients) -> Tensor:
    """Return rows and columns, int64 `[2, n]`; torch computes nothing in uint16."""
    return coefficients[_LOCATIONS].long()
