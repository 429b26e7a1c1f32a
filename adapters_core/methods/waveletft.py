"""WaveletFT: a few wavelet coefficients of the update, at fixed random positions.

    delta = scale * ( Lr A Lc' + Hr B Lc' + Lr C Hc' + Hr D Hc' ),   S = [[A, B], [C, D]]
    S[rows[l] + margin, cols[l] + margin] = spectrum[l], else 0

One level of inverse wavelet transform; L and H hold the low- and high-pass atoms of the rows (r)
and columns (c), see wavelet_filters.py. With more levels (`num_levels`) A is no coefficients but a
delta of its own: that of the level below, of the positions that A has, by the same rule. With
`use_idwt` off, delta = scale * S itself.

Hu et al. 2025, "WaveletFT", Neurocomputing 649:130765, of which the abstract is public; the
transform's details are those of WaveFT (Bilican et al. 2025, arXiv:2505.12532) in PEFT 0.21's
code, whose files are read unchanged. Choices on which codes differ: the top RIGHT quadrant B is
high-pass along the rows and C along the columns, the other way round than Mallat's layout, as in
PEFT. S is padded by taps - 2 and then to an even size, the coefficients stand `margin` =
(taps - 2) / 2 from its corner, atoms that an edge cuts are cut. Positions are the first n of
`torch.randperm(out * in)` under `seed`, row-major over the unpadded `[out, in]`. A fresh adapter
is zero. PEFT's tables of coif4 and coif5 are damaged (no orthonormal filters, 48 taps for 30), so
these two are refused.

Levels are a READING of the paper's "inverse wavelet transform": its abstract says no number, PEFT
has one. Ours nest as Mallat's pyramid does, in the low-low quadrant, which is padded, cut and
halved like a layer of its size; the result is that of `pywt.waverec2`, which drops a line that
padding added. As there, no side may have more levels than it holds whole filters for; one always
goes. PEFT would read such a file as one of a single level, so files of more are of another
`peft_type`, WAVELETFT, which it refuses.

Fast ways. A coefficient is an outer product of two atoms. Where they touch few cells, these are all
that is added or merged (transforms/atoms.py); else the filter bank passes over dense cores. For a
batch, x is analysed once by the column atoms; the rows' own coefficients are gathered, multiplied
and scattered, and the row atoms summed (kernels/wavelet.py). A few Haar coefficients go through no
transform: each reads two cells and writes two (kernels/haar.py).
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
from adapters_core.errors import InvalidAdapter
from adapters_core.gpu_kernels.merge_plans import can_merge
from adapters_core.kernels import analysed_rows, haar_rows, wavelet_rows
from adapters_core.kernels.filter_pyramid import Pyramid, deepest
from adapters_core.kernels.merged_cells import all_cell_parts
from adapters_core.kernels.wavelet_filters import WAVELETS, FilterBank, wavelet_bank
from adapters_core.positions.seeded import flat_positions, positions_digest
from adapters_core.transforms.atoms import LineAtoms, Touched, atoms_at, dense_matrix
from adapters_core.transforms.factored import Core, WaveletLine, analysed, is_narrow, through_core
from adapters_core.transforms.wavelet_basis import WaveletBasis, wavelet_basis

_SPECTRUM = "waveft_spectrum"


#: A file of more levels has a type that PEFT refuses: it would read one level.
_ONE_LEVEL, _MORE_LEVELS = "WAVEFT", "WAVELETFT"


@register
@dataclass(frozen=True)
class WaveletFT(Method):
    """Args: n: coefficients a layer, 1..out*in. scale: alpha. seed: chooses the positions.

    wavelet: one of `WAVELETS`. use_idwt: off, the coefficients are cells of the update itself.
    num_levels: of the transform, from 1 to what the shorter side can hold.
    """

    n: int = 2592
    scale: float = 25.0
    seed: int = 777
    wavelet: str = "db1"
    use_idwt: bool = True
    num_levels: int = 1

    name: ClassVar[str] = "waveletft"
    peft_type: ClassVar[str] = _ONE_LEVEL
    may_be_half: ClassVar[bool] = True
    pattern_fields: ClassVar[Mapping[str, str]] = {"n_frequency": "n_frequency_pattern"}
    #: A layer's share is what a file says; a job says n.
    training_only: ClassVar[Mapping[str, tuple[Any, ...]]] = {"proportional_parameters": (False,)}
    peft_fields: ClassVar[frozenset[str]] = frozenset(
        (
            *("n_frequency", "n_frequency_pattern", "proportional_parameters", "scaling"),
            *("random_loc_seed", "wavelet_family", "use_idwt"),
            *("num_levels", "num_levels_pattern"),
        )
    )

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InvalidAdapter(
                f"n_frequency = {_shown(self.n)}: at least 1 is needed", "n_frequency"
            )
        if not math.isfinite(self.scale):
            raise InvalidAdapter(f"scaling = {self.scale} is not a finite number", "scaling")
        if not 0 <= self.seed < 2**32:
            message = f"random_loc_seed = {_shown(self.seed)} is not in 0..2**32 - 1"
            raise InvalidAdapter(message, "random_loc_seed")
        if self.wavelet not in WAVELETS:
            raise InvalidAdapter(
                f"wavelet_family = {str(self.wavelet)[:80]!r} is not supported; "
                f"supported: {', '.join(WAVELETS)}",
                "wavelet_family",
            )
        if type(self.num_levels) is not int or self.num_levels < 1:
            message = f"num_levels = {_shown(self.num_levels)}: an integer from 1 on is needed"
            raise InvalidAdapter(message, "num_levels")
        if self.num_levels > 1 and not self.use_idwt:
            raise InvalidAdapter("num_levels without the transform (use_idwt off)", "num_levels")

    @classmethod
    def reads(cls, config: PeftConfig) -> bool:
        return config.peft_type.upper() in (_ONE_LEVEL, _MORE_LEVELS)

    @classmethod
    def from_peft(cls, config: PeftConfig, target: str, tensors: Mapping[str, Any]) -> Self:
        n = config.integer("n_frequency", 2592, Pattern("n_frequency_pattern"), target)
        if config.flag("proportional_parameters"):
            # n is the layer's share of all layers' coefficients, as only its tensor says.
            found = tuple(tensors.get(_SPECTRUM, ()))
            n = int(found[0]) if len(found) == 1 else n
        num_levels = config.integer("num_levels", 1, Pattern("num_levels_pattern"), target)
        if num_levels > 1 and str(config.raw.get("peft_type")).upper() == _ONE_LEVEL:
            message = f"num_levels = {_shown(num_levels)}, of which PEFT's {_ONE_LEVEL} has one"
            message += f"; files of more have peft_type {_MORE_LEVELS}"
            raise InvalidAdapter(message, "num_levels")
        return cls(
            n,
            config.number("scaling", 25.0),
            config.integer("random_loc_seed", 777),
            config.raw.get("wavelet_family", "db1"),
            config.flag("use_idwt", True),
            num_levels,
        )

    @classmethod
    def config_of(cls, methods: Mapping[str, Method]) -> dict[str, Any]:
        own = {t: m for t, m in methods.items() if isinstance(m, cls)}
        levels = {t: m.num_levels for t, m in own.items()}
        config = super().config_of({t: replace(m, num_levels=1) for t, m in own.items()})
        if set(levels.values()) == {1}:
            return config
        common = max(levels.values(), key=list(levels.values()).count)
        others = {t.partition(".")[2] or t: n for t, n in levels.items() if n != common}
        config |= {"peft_type": _MORE_LEVELS, "num_levels": common}
        return config | ({"num_levels_pattern": others} if others else {})

    def to_peft(self) -> dict[str, Any]:
        return {
            "n_frequency": self.n,
            "scaling": self.scale,
            "random_loc_seed": self.seed,
            "wavelet_family": self.wavelet,
            "use_idwt": self.use_idwt,
        } | ({"num_levels": self.num_levels} if self.num_levels > 1 else {})

    def tensors(self, shape: Shape) -> dict[str, TensorSpec]:
        if self.n > shape.out * shape.in_:
            raise InvalidAdapter(
                f"n_frequency = {_shown(self.n)}, but the layer has "
                f"{shape.out} x {shape.in_} positions",
                "n_frequency",
            )
        if self.num_levels > (most := self._deepest(shape)):
            raise InvalidAdapter(
                f"num_levels = {_shown(self.num_levels)}, but with {self.wavelet} a layer of "
                f"{shape.out} x {shape.in_} has at most {most}",
                "num_levels",
            )
        return {_SPECTRUM: TensorSpec((self.n,))}

    def init(
        self, shape: Shape, generator: torch.Generator, basis: Any = None
    ) -> dict[str, Tensor]:
        return {_SPECTRUM: torch.zeros(self.n)}

    def delta(self, coefficients: Coefficients, shape: Shape, basis: WaveletBasis) -> Tensor:
        values = self._values(coefficients, basis)
        if not isinstance(basis.parts, Touched):
            return dense_matrix(values, basis.parts, shape, basis.pyramid).float()
        flat = values.new_zeros(shape.out * shape.in_)
        flat = flat.index_copy(0, basis.parts.cells, basis.parts.addends(values))
        return flat.view(*shape).float()

    def training_key(self, shape: Shape, basis: WaveletBasis) -> Hashable | None:
        if is_narrow(shape, self.n):
            return None
        wavelet = (self.use_idwt, self.wavelet, self.num_levels)
        return ("wavelets", wavelet, shape.in_, basis.dtype)

    def training_analyse(self, x: Tensor, shape: Shape, basis: WaveletBasis) -> Tensor:
        if is_narrow(shape, self.n):
            return x
        return analysed(x, WaveletLine(basis.pyramid, shape.in_), basis.dtype)

    def training_apply(
        self, x: Tensor, trained: Coefficients, shape: Shape, basis: WaveletBasis
    ) -> Tensor:
        if is_narrow(shape, self.n):
            return super().training_apply(x, trained, shape, basis)
        core = Core(
            WaveletLine(basis.pyramid, shape.out),
            basis.row_atoms.long(),
            basis.col_atoms.long(),
        )
        values = self._values(trained, basis)[basis.order]
        return through_core(x, values, core)

    def changed_cells(
        self, coefficients: Coefficients, shape: Shape, basis: WaveletBasis
    ) -> tuple[Tensor, Tensor] | None:
        if not isinstance(basis.parts, Touched):
            return None
        values = self._values(coefficients, basis)
        return basis.parts.cells, basis.parts.addends(values).float()

    def merge_many(
        self,
        layers: Sequence[Coefficients],
        golden: Sequence[Tensor],
        out: Sequence[Tensor],
        shape: Shape,
        basis: WaveletBasis,
    ) -> None:
        if basis.tiles is None or not can_merge(golden):
            super().merge_many(layers, golden, out, shape, basis)
            return
        from adapters_core.gpu_kernels.merging import merge_atoms

        for layer, weight, merged in zip(layers, golden, out, strict=True):
            merge_atoms(basis.tiles, self._values(layer, basis), weight, merged)

    def merge_parts(
        self,
        layers: Sequence[Coefficients],
        golden: Sequence[Tensor],
        out: Sequence[Tensor],
        shape: Shape,
        basis: WaveletBasis,
    ) -> Sequence[Callable[[], None]] | None:
        return all_cell_parts(
            (self.changed_cells(layer, shape, basis) for layer in layers), golden, out
        )

    def cells(
        self,
        coefficients: Coefficients,
        shape: Shape,
        rows: Tensor,
        cols: Tensor,
        basis: Any = None,
    ) -> Tensor:
        row_atoms, col_atoms = self._atoms(shape)
        products = row_atoms.numbers_at(rows[:, None]) * col_atoms.numbers_at(cols[:, None])
        return self.scale * (products @ coefficients[_SPECTRUM].double())

    def signature(self, shape: Shape) -> Hashable:
        return (self.name, self.n, self.seed, self.wavelet, self.use_idwt, self.num_levels)

    def packed_length(self, shape: Shape) -> int:
        return self.n

    def pack(self, coefficients: Coefficients, shape: Shape, basis: WaveletBasis) -> Tensor:
        return self.scale * coefficients[_SPECTRUM].float()[basis.host_order]

    def analysis_key(self, shape: Shape) -> Hashable:
        if not self.use_idwt or self._is_direct(shape):
            return ("rows", shape.in_)
        return ("wavelets", self.wavelet, self.num_levels, shape.in_)

    def analyse(self, x: Tensor, shape: Shape, basis: WaveletBasis) -> Tensor:
        """Return every column atom's product with the rows of x, `[T, num_atoms]`, or x itself."""
        x = x.to(basis.dtype)
        return x if basis.blocks is not None else analysed_rows(x, basis.pyramid)

    def apply(
        self, x: Tensor, layer: PackedLayer, rows: Rows, shape: Shape, basis: WaveletBasis
    ) -> Tensor:
        if basis.blocks is not None:
            return haar_rows(x, layer, rows.slots, basis.blocks, shape.out)
        return wavelet_rows(
            x, layer, rows.slots, basis.col_atoms, basis.row_atoms, basis.pyramid, shape.out
        )

    @classmethod
    def kernels(cls, parts: Sequence[BankPart]) -> KernelGroup | None:
        bases: list[WaveletBasis] = [part.basis for part in parts]
        atoms = [basis.atoms for basis in bases if basis.atoms is not None]
        if len(atoms) < len(parts) or any(basis.dtype != torch.float32 for basis in bases):
            return None
        from adapters_core.gpu_kernels.gathered_group import AtomsGroup

        return AtomsGroup(atoms, [part.offset for part in parts])

    def fitted(self, shape: Shape) -> Self:
        num_levels = min(self.num_levels, self._deepest(shape))
        return replace(self, n=min(self.n, shape.out * shape.in_), num_levels=num_levels)

    def is_zero(self, coefficients: Coefficients) -> bool:
        return self.scale == 0 or super().is_zero(coefficients)

    def positions_digest(self, shape: Shape) -> str:
        return positions_digest(flat_positions(self.seed, self.n, shape.out * shape.in_))

    def basis(
        self, shape: Shape, device: torch.device, dtype: torch.dtype, site: Site | None = None
    ) -> WaveletBasis:
        rows, cols = self._atoms(shape)
        return wavelet_basis(rows, cols, self._is_direct(shape), device, dtype)

    def _values(self, coefficients: Coefficients, basis: WaveletBasis) -> Tensor:
        return self.scale * coefficients[_SPECTRUM].to(basis.dtype)

    def _atoms(self, shape: Shape) -> tuple[LineAtoms, LineAtoms]:
        flat = flat_positions(self.seed, self.n, shape.out * shape.in_)
        bank = wavelet_bank(self.wavelet) if self.use_idwt else FilterBank()
        return atoms_at(flat, shape, Pyramid(bank, self.num_levels))

    def _deepest(self, shape: Shape) -> int:
        return deepest(min(shape), wavelet_bank(self.wavelet).taps)

    def _is_direct(self, shape: Shape) -> bool:
        """Return whether a block a coefficient costs less than transforming both sides."""
        is_haar = self.use_idwt and self.wavelet == "db1" and self.num_levels == 1
        return is_haar and 2 * self.n <= shape.out + shape.in_


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."
