"""FourierFT: a few Fourier coefficients of the update, at fixed random positions.

    delta = scale * Re( ifft2( F ) ),   F[rows[l], cols[l]] = spectrum[l], else 0

    delta[p, q] = scale / (M N) * sum_l c_l cos( 2 pi (p rows[l] / M + q cols[l] / N) )

Gao et al. 2024, arXiv:2405.03003, section 3, equations 2-4 and Algorithm 1. Choices on which papers
and codes differ: equation 3 is printed without the factor 1 / (M N), the algorithm, the authors'
code and PEFT carry it (`norm="backward"`), and so do we. Positions are the first n of
`torch.randperm(out * in)` under `seed`, row-major over `[out, in]`, as in PEFT: every layer of one
shape has the same ones. The paper draws coefficients from N(0, 1); a fresh adapter here is zero,
so that it changes nothing (PEFT: `init_weights=True`). The authors' code multiplies x @ delta, so
its positions lie over `[in, out]`: `transposed`, which the config's `entry_seed` says; PEFT's own
seed must then be null, which PEFT refuses, so that it cannot misread such a file.

Fast ways. transforms/fourier_sums.py makes dense deltas and merges. For a batch, the rows' own
half spectra are gathered, multiplied and scattered and transformed back: eight rows at a time in
one compiled loop (kernels/lane_spectra.py), or through torch's transforms (kernels/spectral.py).
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
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
from adapters_core.contract.rows import pad_rows
from adapters_core.errors import InvalidAdapter
from adapters_core.gpu_kernels.lines import has_line, line
from adapters_core.gpu_kernels.merge_plans import (
    SpectralTerms,
    can_merge,
    merging_line,
    spectral_terms,
)
from adapters_core.gpu_kernels.running import runs_on
from adapters_core.kernels import SpectralPlan, spectral_plan, spectral_rows
from adapters_core.kernels.lane_spectra import (
    LaneTables,
    has_lanes,
    lane_analysis,
    lane_tables,
    lane_update,
)
from adapters_core.kernels.lane_sums import (
    SumsPlan,
    has_lane_sums,
    lane_sums,
    sums_parts,
    sums_plan,
)
from adapters_core.kernels.simd16 import can_stream
from adapters_core.positions.seeded import flat_positions, positions_digest
from adapters_core.transforms.factored import Core, FourierLine, analysed, is_narrow, through_core
from adapters_core.transforms.fourier_sums import (
    HalfSpectrum,
    dense_sums,
    half_spectrum,
    write_sums,
)

_SPECTRUM = "fourierft_spectrum"


@dataclass(frozen=True)
class FourierBasis:
    """What all FourierFT adapters of one seed, n and shape share.

    Args:
        positions: int64 `[n]`, flat and row-major, as the coefficients stand in the file.
        half: where they stand in the half spectrum that dense sums are made of.
        plan: which frequency each packed coefficient reads and which it writes.
        weight: float32 `[n]` in host memory, what each packed coefficient is multiplied by.
        lanes: for eight rows at a time; None where that way cannot go.
        sums: for dense sums sixteen rows at a time; None where that way cannot go.
        dtype: of the transforms.
        terms: for a GPU's kernel that merges; None where that way cannot go.
    """

    positions: Tensor
    half: HalfSpectrum
    plan: SpectralPlan
    weight: Tensor
    lanes: LaneTables | None
    sums: SumsPlan | None
    dtype: torch.dtype
    terms: SpectralTerms | None = None


@register
@dataclass(frozen=True)
class FourierFT(Method):
    """Args: n: coefficients a layer, 1..out*in. scale: alpha. seed: chooses the positions.

    transposed: the positions are drawn over `[in, out]`, as in the authors' code.
    """

    n: int = 1000
    scale: float = 150.0
    seed: int = 777
    transposed: bool = False

    name: ClassVar[str] = "fourierft"
    peft_type: ClassVar[str] = "FOURIERFT"
    may_be_half: ClassVar[bool] = True
    pattern_fields: ClassVar[Mapping[str, str]] = {"n_frequency": "n_frequency_pattern"}
    peft_fields: ClassVar[frozenset[str]] = frozenset(
        {"n_frequency", "n_frequency_pattern", "scaling", "random_loc_seed", "entry_seed"}
    )

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InvalidAdapter(f"n_frequency = {self.n}: at least 1 is needed", "n_frequency")
        if not math.isfinite(self.scale):
            raise InvalidAdapter(f"scaling = {self.scale} is not a finite number", "scaling")
        if not 0 <= self.seed < 2**32:
            raise InvalidAdapter(
                f"random_loc_seed = {self.seed} is not in 0..2**32 - 1", "random_loc_seed"
            )

    @classmethod
    def from_peft(cls, config: PeftConfig, target: str, tensors: Mapping[str, Any]) -> Self:
        pattern = Pattern("n_frequency_pattern", r".*\.{key}$")
        n = config.integer("n_frequency", 1000, pattern, target)
        scale = config.number("scaling", 150.0)
        transposed = config.raw.get("entry_seed") is not None
        if transposed and config.raw.get("random_loc_seed") is not None:
            raise InvalidAdapter("entry_seed and random_loc_seed exclude each other", "entry_seed")
        name = "entry_seed" if transposed else "random_loc_seed"
        return cls(n, scale, config.integer(name, 777), transposed)

    def to_peft(self) -> dict[str, Any]:
        fields = {"n_frequency": self.n, "scaling": self.scale}
        if self.transposed:
            return fields | {"random_loc_seed": None, "entry_seed": self.seed}
        return fields | {"random_loc_seed": self.seed}

    def config(self) -> dict[str, Any]:
        values = super().config()
        return values if self.transposed else {k: v for k, v in values.items() if k != "transposed"}

    def tensors(self, shape: Shape) -> dict[str, TensorSpec]:
        if self.n > shape.out * shape.in_:
            raise InvalidAdapter(
                f"n_frequency = {self.n}, but the layer has {shape.out} x {shape.in_} positions",
                "n_frequency",
            )
        return {_SPECTRUM: TensorSpec((self.n,))}

    def init(
        self, shape: Shape, generator: torch.Generator, basis: Any = None
    ) -> dict[str, Tensor]:
        return {_SPECTRUM: torch.zeros(self.n)}

    def delta(self, coefficients: Coefficients, shape: Shape, basis: FourierBasis) -> Tensor:
        return self.delta_many([coefficients], shape, basis)[0]

    def delta_many(
        self, layers: Sequence[Coefficients], shape: Shape, basis: FourierBasis
    ) -> Tensor:
        values = torch.stack([self._values(layer, shape, basis) for layer in layers])
        if values.device.type != "cpu" or (torch.is_grad_enabled() and values.requires_grad):
            return dense_sums(values, basis.half).float()
        deltas = torch.empty(len(layers), *shape)
        for layer, delta in zip(layers, deltas, strict=True):
            self._write(layer, None, delta, basis)
        return deltas

    def merge_many(
        self,
        layers: Sequence[Coefficients],
        golden: Sequence[Tensor],
        out: Sequence[Tensor],
        shape: Shape,
        basis: FourierBasis,
    ) -> None:
        if basis.terms is not None and can_merge(golden):
            from adapters_core.gpu_kernels.merging import merge_spectra

            values = torch.stack([self._values(layer, shape, basis) for layer in layers])
            merge_spectra(basis.terms, values, golden, out)
            return
        if golden[0].device.type != "cpu":  # blocks are for a processor's cache
            super().merge_many(layers, golden, out, shape, basis)
            return
        for layer, weight, merged in zip(layers, golden, out, strict=True):
            self._write(layer, weight, merged, basis)

    def merge_parts(
        self,
        layers: Sequence[Coefficients],
        golden: Sequence[Tensor],
        out: Sequence[Tensor],
        shape: Shape,
        basis: FourierBasis,
    ) -> Sequence[Callable[[], None]] | None:
        if basis.sums is None or not all(map(can_stream, golden, out)):
            return None
        parts: list[Callable[[], None]] = []
        for layer, weight, merged in zip(layers, golden, out, strict=True):
            parts += sums_parts(self._values(layer, shape, basis), basis.sums, weight, merged)
        return parts

    def _write(
        self, layer: Coefficients, golden: Tensor | None, out: Tensor, basis: FourierBasis
    ) -> None:
        """Write the delta, on top of `golden` if given, to `out`."""
        values = self._values(layer, basis.half.shape, basis)
        if basis.sums is None:
            write_sums(values, basis.half, golden, out)
        elif can_stream(golden, out):
            lane_sums(values, basis.sums, golden, out)
        else:  # half precision, or a weight that lies the other way round
            delta = torch.empty(out.shape)
            lane_sums(values, basis.sums, None, delta)
            out.copy_(delta if golden is None else golden + delta)

    def _values(self, layer: Coefficients, shape: Shape, basis: FourierBasis) -> Tensor:
        """Return half of what each coefficient adds: it stands in both halves of the spectrum."""
        factor = 0.5 * self.scale / (shape.out * shape.in_)
        return layer[_SPECTRUM].to(basis.dtype) * factor

    def training_key(self, shape: Shape, basis: FourierBasis) -> Hashable | None:
        return None if self._is_narrow(shape) else ("spectrum", shape.in_, basis.dtype)

    def training_analyse(self, x: Tensor, shape: Shape, basis: FourierBasis) -> Tensor:
        return x if self._is_narrow(shape) else analysed(x, FourierLine(shape.in_), basis.dtype)

    def training_apply(
        self, x: Tensor, trained: Coefficients, shape: Shape, basis: FourierBasis
    ) -> Tensor:
        if self._is_narrow(shape):
            return super().training_apply(x, trained, shape, basis)
        plan = basis.plan
        values = (self.scale / (shape.out * shape.in_)) * trained[_SPECTRUM].to(basis.dtype)
        values = values[plan.order]
        # Each coefficient reads a frequency, or its conjugate, and writes another.
        reads, writes = 2 * plan.cols, 2 * plan.rows
        core = Core(
            FourierLine(shape.out),
            torch.cat([writes, writes + 1]),
            torch.cat([reads, reads + 1]),
        )
        both = torch.cat([values, values * plan.signs.to(values.dtype)])
        return through_core(x, both, core)

    def cells(
        self,
        coefficients: Coefficients,
        shape: Shape,
        rows: Tensor,
        cols: Tensor,
        basis: Any = None,
    ) -> Tensor:
        flat = self._positions(shape)
        # Phases are reduced in integers: float32 would lose them, float64 would round them.
        row_turns = (rows[:, None] * (flat // shape.in_)) % shape.out
        col_turns = (cols[:, None] * (flat % shape.in_)) % shape.in_
        turns = row_turns.double() / shape.out + col_turns.double() / shape.in_
        waves = torch.cos(2 * math.pi * turns)
        return self.scale / (shape.out * shape.in_) * (waves @ coefficients[_SPECTRUM].double())

    def signature(self, shape: Shape) -> Hashable:
        return (self.name, self.n, self.seed, self.transposed)

    def packed_length(self, shape: Shape) -> int:
        return self.n

    def pack(self, coefficients: Coefficients, shape: Shape, basis: FourierBasis) -> Tensor:
        factor = self.scale / (shape.out * shape.in_)
        return factor * basis.weight * coefficients[_SPECTRUM].float()[basis.plan.host_order]

    def analysis_key(self, shape: Shape) -> Hashable:
        return ("spectrum", shape.in_, has_lanes(shape))

    def analyse(self, x: Tensor, shape: Shape, basis: FourierBasis) -> Any:
        """Return the half spectra of x and of rows that pad it: `[T + ..., in_ // 2 + 1]`."""
        if basis.lanes is not None:
            return lane_analysis(x.float(), basis.lanes)
        # Some lengths (32, 11008) are transformed in groups of rows: padded, no row feels it.
        return torch.fft.rfft(pad_rows(x.to(basis.dtype)))

    def apply(
        self, x: Any, layer: PackedLayer, rows: Rows, shape: Shape, basis: FourierBasis
    ) -> Tensor:
        if basis.lanes is not None:
            return lane_update(x, layer, rows, basis.plan, basis.lanes)
        core = spectral_rows(x, layer, rows.padded_slots, basis.plan)
        return torch.fft.irfft(core, n=shape.out, norm="forward")[: rows.slots.shape[0]]

    @classmethod
    def kernels(cls, parts: Sequence[BankPart]) -> KernelGroup | None:
        bases: list[FourierBasis] = [part.basis for part in parts]
        has_lines = all(has_line(size) for part in parts for size in part.shape)
        if not has_lines or any(basis.dtype != torch.float32 for basis in bases):
            return None
        from adapters_core.gpu_kernels import spectral_group

        device = bases[0].positions.device
        linears = [
            spectral_group.Coefficients(
                line(part.shape.out, False, device),
                torch.arange(part.offset, part.offset + part.length, device=device),
                basis.plan.cols,
                basis.plan.rows,
                # Each counts once here, where an inverse transform of half a spectrum takes most
                # of them twice.
                torch.stack([torch.ones_like(signs), signs], dim=1)
                * (1 / basis.weight.to(device))[:, None],
            )
            for part, basis in zip(parts, bases, strict=True)
            for signs in [basis.plan.signs]
        ]
        in_ = line(parts[0].shape.in_, False, device)
        return spectral_group.SpectralGroup(in_, linears, is_own=False)

    def fitted(self, shape: Shape) -> Self:
        return replace(self, n=min(self.n, shape.out * shape.in_))

    def is_zero(self, coefficients: Coefficients) -> bool:
        return self.scale == 0 or super().is_zero(coefficients)

    def positions_digest(self, shape: Shape) -> str:
        return positions_digest(self._positions(shape))

    def basis(
        self, shape: Shape, device: torch.device, dtype: torch.dtype, site: Site | None = None
    ) -> FourierBasis:
        flat = self._positions(shape)
        plan, weight = _packed(flat, shape, device)
        half = half_spectrum(flat, shape, device)
        compiled = device.type == "cpu" and dtype == torch.float32 and has_lanes(shape)
        lanes = lane_tables(shape) if compiled else None
        in_lanes = device.type == "cpu" and dtype == torch.float32 and has_lane_sums(shape, self.n)
        sums = sums_plan(flat, shape) if in_lanes else None
        terms = _terms(flat, shape, device) if dtype == torch.float32 else None
        return FourierBasis(flat.to(device), half, plan, weight, lanes, sums, dtype, terms)

    def _is_narrow(self, shape: Shape) -> bool:
        return is_narrow(shape, 2 * self.n)

    def _positions(self, shape: Shape) -> Tensor:
        """Return the flat positions, int64 `[n]`, row-major over `[out, in_]`."""
        flat = flat_positions(self.seed, self.n, shape.out * shape.in_)
        return flat % shape.out * shape.in_ + flat // shape.out if self.transposed else flat


def _terms(flat: Tensor, shape: Shape, device: torch.device) -> SpectralTerms | None:
    """Return how a kernel merges coefficients at the positions `flat`, if it can."""
    line = merging_line(shape, False, device) if runs_on(device) else None
    if line is None:
        return None
    rows, cols = (part[None].int().to(device) for part in (flat // shape.in_, flat % shape.in_))
    return spectral_terms(rows, cols, shape.out, line)


def _packed(flat: Tensor, shape: Shape, device: torch.device) -> tuple[SpectralPlan, Tensor]:
    """Return how the batch loop reads the core, and the weights in its order."""
    rows, cols = flat // shape.in_, flat % shape.in_
    row_folded, col_folded = rows > shape.out // 2, cols > shape.in_ // 2
    written = torch.where(row_folded, shape.out - rows, rows)
    read = torch.where(col_folded, shape.in_ - cols, cols)
    plan = spectral_plan(read, written, row_folded != col_folded, shape.out // 2 + 1, device)
    rows = written[plan.host_order]
    alone = (rows == 0) | (2 * rows == shape.out)
    return plan, torch.where(alone, 1.0, 0.5)
