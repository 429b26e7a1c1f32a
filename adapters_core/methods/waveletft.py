"""WaveletFT: a few wavelet coefficients of the update, at fixed random places.

    delta = scale * ( Lr A Lc' + Hr B Lc' + Lr C Hc' + Hr D Hc' ),   S = [[A, B], [C, D]]
    S[rows[l] + margin, cols[l] + margin] = spectrum[l], else 0

One level of inverse wavelet transform; L and H hold the low- and high-pass atoms of the rows (r)
and columns (c), see wavelets.py. With `use_idwt` off, delta = scale * S itself.

Hu et al. 2025, "WaveletFT", Neurocomputing 649:130765, of which the abstract is public; the
transform's details are those of WaveFT (Bilican et al. 2025, arXiv:2505.12532) in PEFT 0.21's
code, whose files are read unchanged. Choices on which codes differ: the top RIGHT quadrant B is
high-pass along the rows and C along the columns, the other way round than Mallat's layout, as in
PEFT. S is padded by taps - 2 and then to an even size, the coefficients stand `margin` =
(taps - 2) / 2 from its corner, atoms that an edge cuts are cut. Places are the first n of
`torch.randperm(out * in)` under `seed`, row-major over the unpadded `[out, in]`. A fresh adapter
is zero. One level only: `num_levels` above 1 is refused. PEFT's tables of coif4 and coif5 are
damaged (no orthonormal filters, 48 taps for 30), so these two are refused.

Fast ways. A coefficient is an outer product of two atoms of a few taps, so that the delta is
n * taps^2 additions, or, where there are more of these than cells, two passes of the filter bank
over the dense S. For a batch, x is analysed once by the column atoms, the rows' own coefficients
are gathered, multiplied and scattered (kernels/gathered.py), and the row atoms summed.
"""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from adapters_core.errors import InvalidAdapter
from adapters_core.kernels import gathered_rows
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
from adapters_core.places import flat_places, places_digest
from adapters_core.table import register
from adapters_core.wavelets import WAVELETS, FilterBank, wavelet_bank

_SPECTRUM = "waveft_spectrum"


@dataclass(frozen=True)
class WaveletBasis:
    """What all WaveletFT adapters of one seed, n, wavelet and shape share.

    Args:
        bank: the filters.
        order: int64 `[n]`, the packed order of the coefficients.
        row_atoms, col_atoms: int32 `[n]` in that order, the atom of the rows that each
            coefficient writes and the one of the columns that it reads.
        row_cells, col_cells: int64 `[n, taps]`, the rows and columns these atoms cover.
        row_weights, col_weights: `[n, taps]`, the atoms' numbers.
        dtype: of the transforms.
    """

    bank: FilterBank
    order: Tensor
    row_atoms: Tensor
    col_atoms: Tensor
    row_cells: Tensor
    col_cells: Tensor
    row_weights: Tensor
    col_weights: Tensor
    dtype: torch.dtype


@register
@dataclass(frozen=True)
class WaveletFT(Method):
    """Args: n: coefficients a layer, 1..out*in. scale: alpha. seed: chooses the places.

    wavelet: one of `WAVELETS`. use_idwt: off, the coefficients are cells of the update itself.
    num_levels: of the transform; 1.
    """

    n: int = 2592
    scale: float = 25.0
    seed: int = 777
    wavelet: str = "db1"
    use_idwt: bool = True
    num_levels: int = 1

    name: ClassVar[str] = "waveletft"
    peft_type: ClassVar[str] = "WAVEFT"
    pattern_fields: ClassVar[Mapping[str, str]] = {"n_frequency": "n_frequency_pattern"}
    peft_fields: ClassVar[frozenset[str]] = frozenset(
        (
            *("n_frequency", "n_frequency_pattern", "proportional_parameters", "scaling"),
            *("random_loc_seed", "wavelet_family", "use_idwt", "num_levels"),
        )
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
        if self.wavelet not in WAVELETS:
            raise InvalidAdapter(
                f"wavelet_family = {str(self.wavelet)[:80]!r} is not supported; "
                f"supported: {', '.join(WAVELETS)}",
                "wavelet_family",
            )
        if self.num_levels != 1:
            raise InvalidAdapter(
                f"num_levels = {self.num_levels}: one level is supported", "num_levels"
            )

    @classmethod
    def from_peft(cls, config: PeftConfig, target: str, tensors: Mapping[str, Any]) -> Self:
        n = config.integer("n_frequency", 2592, Pattern("n_frequency_pattern"), target)
        if config.flag("proportional_parameters"):
            # n is the layer's share of all layers' coefficients, as only its tensor says.
            found = tuple(tensors.get(_SPECTRUM, ()))
            n = int(found[0]) if len(found) == 1 else n
        return cls(
            n,
            config.number("scaling", 25.0),
            config.integer("random_loc_seed", 777),
            config.raw.get("wavelet_family", "db1"),
            config.flag("use_idwt", True),
            config.integer("num_levels", 1),
        )

    def to_peft(self) -> dict[str, Any]:
        return {
            "n_frequency": self.n,
            "scaling": self.scale,
            "random_loc_seed": self.seed,
            "wavelet_family": self.wavelet,
            "use_idwt": self.use_idwt,
        }

    def tensors(self, shape: Shape) -> dict[str, TensorSpec]:
        if self.n > shape.out * shape.in_:
            raise InvalidAdapter(
                f"n_frequency = {self.n}, but the layer has {shape.out} x {shape.in_} places",
                "n_frequency",
            )
        return {_SPECTRUM: TensorSpec((self.n,))}

    def init(
        self, shape: Shape, generator: torch.Generator, basis: Any = None
    ) -> dict[str, Tensor]:
        return {_SPECTRUM: torch.zeros(self.n)}

    def delta(self, coefficients: Coefficients, shape: Shape, basis: WaveletBasis) -> Tensor:
        values = self.scale * coefficients[_SPECTRUM].to(basis.dtype)[basis.order]
        if self.n * basis.bank.taps**2 > shape.out * shape.in_:
            return _dense_delta(values, shape, basis).float()
        delta = values.new_zeros(shape.out * shape.in_)
        starts = basis.row_cells * shape.in_
        columns = values[:, None] * basis.row_weights
        for tap in range(basis.bank.taps):
            cells = starts + basis.col_cells[:, tap, None]
            addends = columns * basis.col_weights[:, tap, None]
            delta.index_add_(0, cells.reshape(-1), addends.reshape(-1))
        return delta.view(*shape).float()

    def cells(
        self,
        coefficients: Coefficients,
        shape: Shape,
        rows: Tensor,
        cols: Tensor,
        basis: Any = None,
    ) -> Tensor:
        flat, bank = flat_places(self.seed, self.n, shape.out * shape.in_), self._bank()
        row_atoms, col_atoms = _atoms_of(flat, shape, bank)
        row_numbers = _numbers_at(rows, row_atoms, shape.out, bank)
        products = row_numbers * _numbers_at(cols, col_atoms, shape.in_, bank)
        return self.scale * (products @ coefficients[_SPECTRUM].double())

    def signature(self, shape: Shape) -> Hashable:
        return (self.name, self.n, self.seed, self.wavelet, self.use_idwt)

    def packed_length(self, shape: Shape) -> int:
        return self.n

    def pack(self, coefficients: Coefficients, shape: Shape, basis: WaveletBasis) -> Tensor:
        return self.scale * coefficients[_SPECTRUM].float().to(basis.order.device)[basis.order]

    def analysis_key(self, shape: Shape) -> Hashable:
        return ("wavelets", self.wavelet if self.use_idwt else "", shape.in_)

    def analyse(self, x: Tensor, shape: Shape, basis: WaveletBasis) -> Tensor:
        """Return every column atom's product with the rows of x: `[T, num_atoms]`."""
        return basis.bank.analyse(x.to(basis.dtype))

    def apply(
        self, x: Tensor, layer: PackedLayer, rows: Rows, shape: Shape, basis: WaveletBasis
    ) -> Tensor:
        core = gathered_rows(
            x,
            layer,
            rows.slots,
            basis.col_atoms,
            basis.row_atoms,
            basis.bank.num_atoms(shape.out),
        )
        return basis.bank.synthesise(core, shape.out)

    def fitted(self, shape: Shape) -> Self:
        return replace(self, n=min(self.n, shape.out * shape.in_))

    def places_digest(self, shape: Shape) -> str:
        return places_digest(flat_places(self.seed, self.n, shape.out * shape.in_))

    def basis(
        self, shape: Shape, device: torch.device, dtype: torch.dtype, site: Site | None = None
    ) -> WaveletBasis:
        flat, bank = flat_places(self.seed, self.n, shape.out * shape.in_), self._bank()
        row_atoms, col_atoms = _atoms_of(flat, shape, bank)
        # Sorted by what is written, the batch loop's stores stay in cache.
        order = torch.argsort(row_atoms * bank.num_atoms(shape.in_) + col_atoms)
        row_atoms, col_atoms = row_atoms[order], col_atoms[order]
        row_cells, row_weights = bank.atoms(row_atoms, shape.out)
        col_cells, col_weights = bank.atoms(col_atoms, shape.in_)
        return WaveletBasis(
            bank,
            order.to(device),
            row_atoms.int().to(device),
            col_atoms.int().to(device),
            row_cells.to(device),
            col_cells.to(device),
            row_weights.to(device, dtype),
            col_weights.to(device, dtype),
            dtype,
        )

    def _bank(self) -> FilterBank:
        return wavelet_bank(self.wavelet) if self.use_idwt else FilterBank()


def _atoms_of(flat: Tensor, shape: Shape, bank: FilterBank) -> tuple[Tensor, Tensor]:
    """Return the row atom and the column atom of each place, int64 `[n]` both."""
    rows, cols = flat // shape.in_, flat % shape.in_
    if bank.taps == 1:
        return rows, cols
    half_rows, half_cols = bank.num_atoms(shape.out) // 2, bank.num_atoms(shape.in_) // 2
    margin = bank.taps // 2 - 1
    rows, cols = rows + margin, cols + margin
    bottom, right = (rows >= half_rows).long(), (cols >= half_cols).long()
    # The right half is high-pass along the rows, the bottom half along the columns.
    return rows % half_rows + right * half_rows, cols % half_cols + bottom * half_cols


def _numbers_at(at: Tensor, atoms: Tensor, size: int, bank: FilterBank) -> Tensor:
    """Return what each atom of a line holds `at` a cell, float64 `[cells, n]`, one by one."""
    if bank.taps == 1:
        return (at[:, None] == atoms).double()
    half = bank.num_atoms(size) // 2
    tap = at[:, None] + bank.taps - 2 - 2 * (atoms % half)
    filters = torch.tensor([bank.low, bank.high], dtype=torch.float64)
    numbers = filters[atoms // half, tap.clamp(0, bank.taps - 1)]
    return numbers.where((tap >= 0) & (tap < bank.taps), 0.0)


def _dense_delta(values: Tensor, shape: Shape, basis: WaveletBasis) -> Tensor:
    """Return the delta `[out, in_]` by the filter bank over the dense coefficients."""
    bank = basis.bank
    num_rows, num_cols = bank.num_atoms(shape.out), bank.num_atoms(shape.in_)
    dense = values.new_zeros(num_rows * num_cols)
    dense = dense.index_copy(0, basis.row_atoms.long() * num_cols + basis.col_atoms, values)
    wide = bank.synthesise(dense.view(num_rows, num_cols), shape.in_)
    return bank.synthesise(wide.T, shape.out).T
