"""What all adapters of one set of wavelet atoms share, made once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from adapters_core.contract.layer import Shape
from adapters_core.gpu_kernels.merge_plans import AtomTiles, atom_tiles
from adapters_core.gpu_kernels.running import runs_on
from adapters_core.gpu_kernels.sliced import Atoms, sliced
from adapters_core.kernels.filter_pyramid import Pyramid
from adapters_core.kernels.haar import Blocks
from adapters_core.transforms.atoms import LineAtoms, Touched, positions_in_cores, touched

#: Few touched cells: this part of the matrix, and this many, or four (a Haar block) a coefficient.
_SPARSE_PART, _SPARSE_TERMS = 8, 1 << 20
#: Kernels read cell by cell what one side's atoms touch, up to so many.
_MOST_ENTRIES = 1 << 20


@dataclass(frozen=True)
class WaveletBasis:
    """What all WaveletFT adapters of one seed, n, wavelet, depth and shape share.

    Args:
        pyramid: the filters and levels of both sides.
        order: int64 `[n]`, the packed order of the coefficients.
        host_order: the same in host memory, where they are packed.
        row_atoms, col_atoms: int32 `[n]` in that order, the atom of the rows that each
            coefficient writes and the one of the columns that it reads.
        blocks: the same as cells, where no transform is needed.
        parts: the few cells that are touched; or int64 `[n]`, the positions in dense cores.
        dtype: of the transforms.
        atoms: what kernels read, where these run and the coefficients touch few cells.
        tiles: which coefficients reach which tiles, for a GPU's kernel that merges; None where
            that way cannot go.
    """

    pyramid: Pyramid
    order: Tensor
    host_order: Tensor
    row_atoms: Tensor
    col_atoms: Tensor
    blocks: Blocks | None
    parts: Touched | Tensor
    dtype: torch.dtype
    atoms: Atoms | None = None
    tiles: AtomTiles | None = None


def wavelet_basis(
    rows: LineAtoms, cols: LineAtoms, direct: bool, device: torch.device, dtype: torch.dtype
) -> WaveletBasis:
    """Return the basis of coefficients with these atoms.

    Args:
        rows: the atom of the rows of each coefficient.
        cols: the one of the columns.
        direct: whether a batch needs no transform: they are Haar atoms of one level.
        device: where the batch lives.
        dtype: of the transforms.
    """
    row_atoms, col_atoms = rows.in_line(), cols.in_line()
    # Sorted by what is written, the batch loop's stores stay in cache.
    order = torch.argsort(row_atoms * cols.pyramid.num_atoms(cols.size) + col_atoms)
    at_most = max(4 * len(order), _SPARSE_TERMS)
    parts = touched(rows, cols, device, dtype, min(at_most, rows.size * cols.size // _SPARSE_PART))
    return WaveletBasis(
        rows.pyramid,
        order.to(device),
        order,
        row_atoms[order].int().to(device),
        col_atoms[order].int().to(device),
        _blocks(rows.of(order), cols.of(order), device, dtype) if direct else None,
        positions_in_cores(rows, cols).to(device) if parts is None else parts,
        dtype,
        _atoms(rows.of(order), cols.of(order), device) if runs_on(device) else None,
        _tiles(rows, cols, device) if runs_on(device) and dtype == torch.float32 else None,
    )


def _atoms(rows: LineAtoms, cols: LineAtoms, device: torch.device) -> Atoms | None:
    """Return the atoms as kernels read them, the shortest first: slices are padded least."""
    order = torch.argsort(cols.ends()[1], stable=True)
    reads, writes = cols.of(order).entries(_MOST_ENTRIES), rows.of(order).entries(_MOST_ENTRIES)
    if reads is None or writes is None:
        return None
    (place, cell, number), n = reads, len(order)
    return Atoms(
        sliced(place, cell, number.float(), n).to(device),
        sliced(writes[1], writes[0], writes[2].float(), rows.size).to(device),
        order.to(device),
    )


def _tiles(rows: LineAtoms, cols: LineAtoms, device: torch.device) -> AtomTiles:
    """Return the tiles that each coefficient reaches."""
    shape, filters = Shape(rows.size, cols.size), rows.filters()
    return atom_tiles(rows.in_filters(), cols.in_filters(), filters, shape, device)


def _blocks(rows: LineAtoms, cols: LineAtoms, device: torch.device, dtype: torch.dtype) -> Blocks:
    """Return the two rows and the two columns of Haar atoms."""
    cells, numbers = [], []
    for atoms in (rows, cols):
        both = 2 * atoms.index[:, None] + torch.arange(2)
        number = atoms.of(torch.arange(len(both))[:, None]).numbers_at(both)
        inside = both < atoms.size
        cells.append(both.where(inside, 0).int().to(device))
        numbers.append(number.where(inside, 0.0).to(device, dtype))
    return Blocks(*cells, *numbers)
