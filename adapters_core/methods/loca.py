"""LoCA: a few cosine coefficients of the update, at locations that training chose for each layer.

    delta = scale * idct2( S ),   S[rows[k], cols[k]] += spectrum[k], else 0

    delta[p, q] = scale * sum_k a_k u_M(rows[k], p) u_N(cols[k], q)
    u_N(k, t) = sqrt(2/N) cos( pi (2t + 1) k / (2N) ),  u_N(0, t) = sqrt(1/N)

Du et al. 2025, arXiv:2502.06820 (ICLR): delta = alpha C^T S(a, l, 1) D with orthonormal DCT-II
matrices C and D. The paper's body and the authors' repository could not be had, so no equation
number stands here: the formula and the training are those of the authors' layer as another project
carries it. Choices: orthonormal both ways, so one unit of a coefficient has Frobenius norm `scale`
whatever the layer's size; coefficients at one location add, as in the authors' sparse matrix.

The file is our own, `loca_spectrum` `[n]` and `loca_locations` `[2, n]`, rows then columns of
`[out, in]`, as integers (uint16 where the layer is narrow enough): the names and the floating
positions that the authors' code writes are not verified, and a position is only what it rounds to.

Training moves `loca_positions` u `[2, n]`, float32 in 0..1, in the locations' stead; a location is
round(clamp(u, 0, 0.999) (size - 1)), so the last thousandth of the frequencies is out of reach, and
a position beyond an end has no gradient. Fresh positions are uniform in 0..0.999, so that all of
them can move (the authors': in 0..1); two may share a cell, `distinct_locations` counts. Their
gradient is the central difference of cosine_sums.py. Spectrum and positions take turns, 10 and 20
steps, in the first tenth of a run; then the positions rest. The authors count forward passes; here
the optimiser's steps count, which gradient accumulation does not change. So a run of up to 100
steps leaves the locations where they are: its steps are worth more to the spectrum. Positions want
a smaller rate than it: one of 1e-4 moves a location of a 1024-wide layer by a tenth under Adam.

Fast ways. cosine_sums.py makes dense deltas. For a batch, the rows are transformed, gathered,
multiplied and scattered, each at the locations of its own slot, and transformed back; so locations
are packed beside their coefficients.
"""

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from adapters_core.contract.method import (
    BankPart,
    Coefficients,
    KernelGroup,
    Method,
    PackedLayer,
    Rows,
    Shape,
    Site,
    TensorSpec,
)
from adapters_core.contract.method_registry import register
from adapters_core.contract.peft_config import Pattern, PeftConfig
from adapters_core.contract.rows import padding_of
from adapters_core.errors import InvalidAdapter
from adapters_core.gpu_kernels.lines import has_line, line
from adapters_core.gpu_kernels.merge_plans import can_merge, merging_line
from adapters_core.kernels import located_rows, located_spectrum
from adapters_core.kernels.lane_cosines import lane_dct, lane_located
from adapters_core.kernels.located import EXACT_INTEGERS
from adapters_core.positions.seeded import flat_positions
from adapters_core.transforms.cosine import cosine_table, cosines, dct, idct, idct_of_half
from adapters_core.transforms.cosine_sums import (
    CosineBasis,
    Cosines,
    LocatedCosines,
    add_sum,
    merge_sums,
    sums_of,
    whole_positions,
)
from adapters_core.transforms.factored import Core, CosineLine, analysed, is_narrow, through_learned

_SPECTRUM, _LOCATIONS = "loca_spectrum", "loca_locations"
#: What training moves in the locations' stead: float32 `[2, n]` in 0..1, over rows and columns.
_POSITIONS = "loca_positions"
#: Positions end here, so that the last thousandth of the frequencies stays out of reach.
_POSITION_END = 0.999
#: Optimiser steps of one cycle: the first move coefficients, the others positions.
_COEFFICIENT_STEPS, _POSITION_STEPS = 10, 20
#: After the first of so many equal parts of a run the positions rest.
_PARTS = 10
_LARGEST = torch.finfo(torch.float32).max


#: Integers that a file may hold locations in.
_INTEGERS = (torch.int64, torch.int32, torch.uint16, torch.uint8)
_UINT16_UP_TO = 1 << 16


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
                f"n_frequency = {self.n}, but the layer has {shape.out} x {shape.in_} locations",
                "n_frequency",
            )
        return {
            _SPECTRUM: TensorSpec((self.n,)),
            _LOCATIONS: TensorSpec((2, self.n), floating=False),
        }

    def check(self, coefficients: Coefficients, shape: Shape) -> None:
        if max(shape) > EXACT_INTEGERS:
            raise InvalidAdapter(f"a layer of {shape.out} x {shape.in_} is too wide", _LOCATIONS)
        dtype = coefficients[_LOCATIONS].dtype
        if dtype not in _INTEGERS:
            raise InvalidAdapter(f"locations are integers, not {dtype}", _LOCATIONS)
        for what, locations, size in zip(
            ("row", "column"), _locations(coefficients), shape, strict=True
        ):
            low, high = (int(bound) for bound in locations.aminmax())
            if low < 0 or high >= size:
                wrong = low if low < 0 else high
                raise InvalidAdapter(f"{what} {wrong} is not in 0..{size - 1}", _LOCATIONS)
        largest = abs(self.scale) * float(coefficients[_SPECTRUM].detach().double().abs().max())
        if largest > _LARGEST:
            raise InvalidAdapter(
                f"scaling times the largest coefficient is {largest:.3g}; float32 ends at "
                f"{_LARGEST:.3g}",
                _SPECTRUM,
            )

    def init(
        self, shape: Shape, generator: torch.Generator, basis: Any = None
    ) -> dict[str, Tensor]:
        seed = int(torch.randint(2**32, (1,), generator=generator))
        flat = flat_positions(seed, self.n, shape.out * shape.in_)
        locations = torch.stack([flat // shape.in_, flat % shape.in_])
        return {_SPECTRUM: torch.zeros(self.n), _LOCATIONS: _as_integers(locations, shape)}

    def delta(self, coefficients: Coefficients, shape: Shape, basis: CosineBasis) -> Tensor:
        self.check(coefficients, shape)
        return self._learned(coefficients[_SPECTRUM], coefficients[_LOCATIONS], shape, basis)

    def delta_many(
        self, layers: Sequence[Coefficients], shape: Shape, basis: CosineBasis
    ) -> Tensor:
        return sums_of([self._sum(layer, shape, basis) for layer in layers], shape, basis)

    def merge_many(
        self,
        layers: Sequence[Coefficients],
        golden: Sequence[Tensor],
        out: Sequence[Tensor],
        shape: Shape,
        basis: CosineBasis,
    ) -> None:
        line = merging_line(shape, True, basis.device) if can_merge(golden) else None
        if line is not None and basis.dtype == torch.float32:
            merge_sums([self._sum(layer, shape, basis) for layer in layers], golden, out, line)
            return
        if not basis.has_blocks:
            super().merge_many(layers, golden, out, shape, basis)
            return
        for layer, weight, merged in zip(layers, golden, out, strict=True):
            add_sum(self._sum(layer, shape, basis), weight, merged, shape, basis)

    def _learned(
        self, spectrum: Tensor, locations: Tensor, shape: Shape, basis: CosineBasis
    ) -> Tensor:
        """Return the delta with its gradients; locations are integers, or numbers to be rounded."""
        values = self.scale * spectrum.float()
        delta: Tensor = LocatedCosines.apply(values, locations, shape, basis)  # type: ignore[no-untyped-call]
        return delta

    def _sum(self, layer: Coefficients, shape: Shape, basis: CosineBasis) -> Cosines:
        if basis.device.type == "cpu":  # the compiled loops trust the locations
            self.check(layer, shape)
        rows, cols = _locations(layer)
        return Cosines(layer[_SPECTRUM].to(basis.dtype) * self.scale, rows, cols)

    def cells(
        self,
        coefficients: Coefficients,
        shape: Shape,
        rows: Tensor,
        cols: Tensor,
        basis: Any = None,
    ) -> Tensor:
        row_locations, col_locations = _locations(coefficients)
        waves = cosines(rows, row_locations, shape.out) * cosines(cols, col_locations, shape.in_)
        return self.scale * (waves @ coefficients[_SPECTRUM].double())

    def signature(self, shape: Shape) -> Hashable:
        return (self.name, self.n)

    def packed_length(self, shape: Shape) -> int:
        return 3 * self.n

    def pack(self, coefficients: Coefficients, shape: Shape, basis: CosineBasis) -> Tensor:
        self.check(coefficients, shape)  # the compiled loop trusts the locations
        spectrum = self.scale * coefficients[_SPECTRUM].float()
        return torch.cat([spectrum, _locations(coefficients).float().view(-1)])

    def analysis_key(self, shape: Shape) -> Hashable:
        return ("cosines", shape.in_)

    def analyse(self, x: Tensor, shape: Shape, basis: CosineBasis) -> Tensor:
        """Return the cosine transforms of x and of rows that pad it: `[T + ..., in_]`."""
        num_rows, table = x.shape[0] + padding_of(x.shape[0]), basis.in_
        if table.lanes is not None and table.turn is not None:
            return lane_dct(x.float(), num_rows, table.lanes, table.turn)
        return dct(x.to(basis.dtype), basis.in_, num_rows)

    def apply(
        self, x: Tensor, layer: PackedLayer, rows: Rows, shape: Shape, basis: CosineBasis
    ) -> Tensor:
        if basis.out.lanes is not None and basis.out.turn is not None:
            return lane_located(x, layer, rows.slots, basis.out.lanes, basis.out.turn)
        if basis.out.turn is None:
            update = idct(located_rows(x, layer, rows.padded_slots, shape.out), basis.out)
        else:
            half = located_spectrum(x, layer, rows.slots, basis.out.turn[2:], shape.out)
            update = idct_of_half(half, basis.out)
        return update[: rows.slots.shape[0]]

    @classmethod
    def kernels(cls, parts: Sequence[BankPart]) -> KernelGroup | None:
        bases: list[CosineBasis] = [part.basis for part in parts]
        has_lines = all(has_line(size) for part in parts for size in part.shape)
        if not has_lines or any(basis.dtype != torch.float32 for basis in bases):
            return None
        from adapters_core.gpu_kernels import spectral_group

        device = bases[0].device
        linears = []
        for part in parts:
            columns = torch.arange(part.offset, part.offset + part.length, device=device)
            values, rows, cols = columns.chunk(3)
            out = line(part.shape.out, True, device)
            linears.append(spectral_group.Coefficients(out, values, cols, rows))
        in_ = line(parts[0].shape.in_, True, device)
        return spectral_group.SpectralGroup(in_, linears, is_own=True)

    def fitted(self, shape: Shape) -> Self:
        return replace(self, n=min(self.n, shape.out * shape.in_))

    def basis(
        self, shape: Shape, device: torch.device, dtype: torch.dtype, site: Site | None = None
    ) -> CosineBasis:
        out, in_ = (cosine_table(size, device, dtype) for size in shape)
        return CosineBasis(out, in_, device, dtype)

    def is_zero(self, coefficients: Coefficients) -> bool:
        return self.scale == 0 or not bool(coefficients[_SPECTRUM].any())

    def training_init(
        self, shape: Shape, generator: torch.Generator, basis: Any = None
    ) -> dict[str, Tensor]:
        positions = _POSITION_END * torch.rand(2, self.n, generator=generator)
        return {_SPECTRUM: torch.zeros(self.n), _POSITIONS: positions}

    def training_tensors(self, shape: Shape) -> dict[str, TensorSpec]:
        positions = TensorSpec((2, self.n), role="positions")
        return {_SPECTRUM: self.tensors(shape)[_SPECTRUM], _POSITIONS: positions}

    def training_key(self, shape: Shape, basis: CosineBasis) -> Hashable | None:
        return None if is_narrow(shape, self.n) else ("cosines", shape.in_, basis.dtype)

    def training_analyse(self, x: Tensor, shape: Shape, basis: CosineBasis) -> Tensor:
        return x if is_narrow(shape, self.n) else analysed(x, CosineLine(basis.in_), basis.dtype)

    def training_apply(self, x: Tensor, trained: Coefficients, shape: Shape, basis: Any) -> Tensor:
        if is_narrow(shape, self.n):
            return super().training_apply(x, trained, shape, basis)
        locations = _scaled(trained[_POSITIONS], shape)
        whole = whole_positions(locations.detach(), shape)
        core = Core(CosineLine(basis.out), *whole)
        values = self.scale * trained[_SPECTRUM].to(basis.dtype)
        return through_learned(x, values, locations, core)

    def training_delta(self, trained: Coefficients, shape: Shape, basis: CosineBasis) -> Tensor:
        locations = _scaled(trained[_POSITIONS], shape)
        return self._learned(trained[_SPECTRUM], locations, shape, basis)

    def export(self, trained: Coefficients, shape: Shape) -> dict[str, Tensor]:
        locations = whole_positions(_scaled(trained[_POSITIONS].detach(), shape), shape)
        return {_SPECTRUM: trained[_SPECTRUM], _LOCATIONS: _as_integers(locations, shape)}

    def training_schedule(self, step: int, num_steps: int) -> Collection[str]:
        """Return the spectrum or the positions: never both, and first and last the spectrum."""
        cycle = _COEFFICIENT_STEPS + _POSITION_STEPS
        if step >= num_steps // _PARTS or step % cycle < _COEFFICIENT_STEPS:
            return {_SPECTRUM}
        return {_POSITIONS}


def distinct_locations(coefficients: Coefficients, shape: Shape) -> int:
    """Return in how many cells the coefficients of a file stand; those in one cell add."""
    rows, cols = _locations(coefficients)
    return torch.unique(rows * shape.in_ + cols).numel()


def _scaled(positions: Tensor, shape: Shape) -> Tensor:
    """Return positions `[2, n]` as frequencies that are yet to be rounded."""
    ends = positions.new_tensor([[shape.out - 1], [shape.in_ - 1]])
    return positions.clamp(0, _POSITION_END) * ends


def _as_integers(locations: Tensor, shape: Shape) -> Tensor:
    """Return locations as the file holds them: uint16 where the layer is narrow enough."""
    return locations.to(torch.uint16 if max(shape) <= _UINT16_UP_TO else torch.int32)


def _locations(coefficients: Coefficients) -> Tensor:
    """Return rows and columns, int64 `[2, n]`; torch computes nothing in uint16."""
    return coefficients[_LOCATIONS].long()
