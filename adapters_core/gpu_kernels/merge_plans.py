"""Where the coefficients of updates stand for the kernels that merge them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters_core.contract.layer import Shape
from adapters_core.gpu_kernels.lines import Line, has_line, line, roots_of
from adapters_core.gpu_kernels.running import runs_on

#: Weights that kernels merge; others go torch's way.
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
#: Two products of 32 x 32 and 64 x 64; those of 64 x 64 alone spill registers.
_LONGEST_PART = 2048
#: A turn's numerator is a product of a row and a frequency, in 32 bits.
_MOST_ROWS = 1 << 15
#: Numbers along each side of a tile of WaveletFT's.
SIDE = 64


@dataclass(frozen=True)
class SpectralTerms:
    """The coefficients of L layers of one shape, in the order in which a kernel sums them.

    Args:
        line: of the weight's rows.
        row_roots: the roots that the rows' own factors are read from.
        source: int64 `[L, K]`, which coefficient each term is half of; L may be 1, for all layers.
        rows: int32 `[L, K]`, the frequency along the rows.
        cols: int32 `[L, K]`, the one along a row; of cosines by quarters of a turn.
        steps: float32 `[L, K, 2]`, the factor from row to row.
        starts: int32 `[L, cells + 1]`, the first term of each cell of a part's spectrum.
    """

    line: Line
    row_roots: Tensor
    source: Tensor
    rows: Tensor
    cols: Tensor
    steps: Tensor
    starts: Tensor


def merging_line(shape: Shape, is_cosine: bool, device: torch.device) -> Line | None:
    """Return the line of a weight's rows; None where kernels cannot merge the shape."""
    if shape.out > _MOST_ROWS or not has_line(shape.in_):
        return None
    return line(shape.in_, is_cosine, device, _LONGEST_PART)


def spectral_terms(rows: Tensor, cols: Tensor, num_rows: int, line: Line) -> SpectralTerms:
    """Return the terms of coefficients at frequencies `rows` and `cols`, int32 `[L, n]`."""
    period = 4 * line.size if line.is_cosine else line.size
    both_rows = torch.cat([rows, rows if line.is_cosine else -rows % num_rows], dim=1)
    both_cols = torch.cat([cols, -cols], dim=1) % period
    row_roots = roots_of(4 * num_rows if line.is_cosine else num_rows, rows.device)
    frequency = both_cols % line.part_size
    cell = frequency % line.rows * line.cols + frequency // line.rows
    ordered, order = torch.sort(cell, dim=1, stable=True)
    both_rows, both_cols = both_rows.gather(1, order), both_cols.gather(1, order)
    cells = torch.arange(line.part_size + 1, device=rows.device, dtype=torch.int32)
    return SpectralTerms(
        line,
        row_roots,
        order % rows.shape[1],
        both_rows,
        both_cols,
        row_roots[2 * both_rows % len(row_roots) if line.is_cosine else both_rows],
        torch.searchsorted(ordered, cells.repeat(len(rows), 1), out_int32=True),
    )


@dataclass(frozen=True)
class AtomTiles:
    """Which coefficients reach each tile of a weight, and their atoms.

    Args:
        members: int32 `[K]`, coefficients, tile by tile.
        starts: int32 `[tiles + 1]`, row-major.
        row_atoms, col_atoms: int32 `[n, 3]`: the first position of each atom, its length, and
            where its numbers begin in the filters.
        filters: float32.
    """

    members: Tensor
    starts: Tensor
    row_atoms: Tensor
    col_atoms: Tensor
    filters: Tensor

    @property
    def nbytes(self) -> int:
        """Return the bytes of all of them."""
        read = (self.members, self.starts, self.row_atoms, self.col_atoms, self.filters)
        return sum(tensor.nbytes for tensor in read)


def atom_tiles(
    row_atoms: Tensor, col_atoms: Tensor, filters: Tensor, shape: Shape, device: torch.device
) -> AtomTiles:
    """Return the tiles of atoms `[n, 3]` as above, int64, of the rows and of the columns."""
    first_row, num_rows = _tiles_reached(row_atoms, shape.out)
    first_col, num_cols = _tiles_reached(col_atoms, shape.in_)
    counts = num_rows * num_cols
    member = torch.repeat_interleave(torch.arange(len(counts)), counts)
    within = torch.arange(len(member)) - (counts.cumsum(0) - counts)[member]
    across = -(-shape.in_ // SIDE)
    tile = (first_row[member] + within // num_cols[member]) * across
    tile = tile + first_col[member] + within % num_cols[member]
    tile, order = torch.sort(tile, stable=True)
    num_tiles = -(-shape.out // SIDE) * across
    return AtomTiles(
        member[order].int().to(device),
        torch.searchsorted(tile, torch.arange(num_tiles + 1)).int().to(device),
        row_atoms.int().to(device),
        col_atoms.int().to(device),
        filters.float().to(device),
    )


def _tiles_reached(atoms: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the first tile that each atom reaches, and how many: an edge may cut all of it."""
    first, last = atoms[:, 0].clamp(min=0), (atoms[:, 0] + atoms[:, 1]).clamp(max=size) - 1
    return first // SIDE, torch.where(first <= last, last // SIDE - first // SIDE + 1, 0)


def can_merge(golden: Sequence[Tensor]) -> bool:
    """Return whether kernels merge these weights: where they are, and in their dtypes."""
    return all(runs_on(weight.device) and weight.dtype in _DTYPES for weight in golden)
