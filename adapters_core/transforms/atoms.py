"""The atoms of a matrix: outer products of an atom of the rows and one of the columns.

A coefficient stands at a position of the matrix. Level by level, until it falls outside the low-low
quadrant, that position is moved by `margin` = (taps - 2) / 2 into the padded core and its half of
each side chooses the filters: the right half is high-pass along the rows, the bottom half along
the columns.

With few of them the matrix is the sum over the cells that they touch (`Touched`); with many it is
synthesised from the dense cores of all levels (`dense_matrix`).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adapters_core.contract.layer import Shape
from adapters_core.kernels.filter_pyramid import Pyramid


@dataclass(frozen=True)
class LineAtoms:
    """One atom of a line for each of n coefficients.

    Args:
        pyramid: of the atoms.
        size: of the line.
        level: int64 `[n]`, from 0.
        index: int64 `[n]`, the position in its half of the level.
        high: bool `[n]`, whether it is high-pass.
    """

    pyramid: Pyramid
    size: int
    level: Tensor
    index: Tensor
    high: Tensor

    def in_level(self) -> Tensor:
        """Return each atom's number among those of its level, int64 `[n]`."""
        half = [self.pyramid.bank.num_atoms(size) // 2 for size in self.pyramid.sizes(self.size)]
        return self.index + self.high * torch.tensor(half)[self.level]

    def in_line(self) -> Tensor:
        """Return each atom's number among those of all levels, int64 `[n]`."""
        return self.in_level() + torch.tensor(self.pyramid.starts(self.size))[self.level]

    def ends(self) -> tuple[Tensor, Tensor]:
        """Return the first cell of the line that each atom covers, and how many: int64 `[n]`."""
        first, stop = self.pyramid.span(self.level, self.index)
        first, stop = first.clamp(min=0), stop.clamp(max=self.size)
        return first, stop - first

    def entries(self, at_most: int) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return what the atoms hold, `[E]` each: the atom, the cell of the line, the number.

        None: these are more than `at_most`.
        """
        first, counts = self.ends()
        if int(counts.sum()) > at_most:
            return None
        source = torch.repeat_interleave(torch.arange(len(counts)), counts)
        within = torch.arange(len(source)) - (counts.cumsum(0) - counts)[source]
        cells = first[source] + within
        return source, cells, self.of(source).numbers_at(cells)

    def of(self, source: Tensor) -> "LineAtoms":
        """Return the atoms of the coefficients `source`."""
        index, high = self.index[source], self.high[source]
        return LineAtoms(self.pyramid, self.size, self.level[source], index, high)

    def numbers_at(self, cells: Tensor) -> Tensor:
        """Return what each atom holds at its own of the cells, float64; zero outside of it.

        Args:
            cells: int64, `[n]` or broadcast with it.
        """
        first, length, start = self.in_filters().unbind(-1)
        tap = cells - first
        inside = (tap >= 0) & (tap < length)
        return self.filters()[(start + tap).where(inside, 0)].where(inside, 0.0)

    def filters(self) -> Tensor:
        """Return the numbers of all atoms of the pyramid, float64, one behind the other."""
        return torch.from_numpy(np.concatenate([one.reshape(-1) for one in self.pyramid.filters]))

    def in_filters(self) -> Tensor:
        """Return each atom's first cell, its length and where it starts in `filters`: `[n, 3]`."""
        lengths = torch.tensor([one.shape[1] for one in self.pyramid.filters])
        starts, length = 2 * (lengths.cumsum(0) - lengths), lengths[self.level]
        first = self.pyramid.span(self.level, self.index)[0]
        return torch.stack([first, length, starts[self.level] + self.high * length], dim=-1)


def atoms_at(flat: Tensor, shape: Shape, pyramid: Pyramid) -> tuple[LineAtoms, LineAtoms]:
    """Return the atoms of the rows and of the columns of coefficients at `flat` positions `[n]`."""
    rows, cols = flat // shape.in_, flat % shape.in_
    inside = torch.ones_like(flat, dtype=torch.bool)
    level, bottom, right = torch.zeros_like(flat), ~inside, ~inside
    if pyramid.bank.low:
        level, margin = level - 1, pyramid.bank.taps // 2 - 1
        for sizes in zip(pyramid.sizes(shape.out), pyramid.sizes(shape.in_), strict=True):
            half_rows, half_cols = (pyramid.bank.num_atoms(size) // 2 for size in sizes)
            rows, cols, level = rows + margin * inside, cols + margin * inside, level + inside
            below, beside = inside & (rows >= half_rows), inside & (cols >= half_cols)
            rows, cols = rows - half_rows * below, cols - half_cols * beside
            bottom, right = bottom | below, right | beside
            inside = inside & ~(below | beside)
    # The right half is high-pass along the rows, the bottom half along the columns.
    return (
        LineAtoms(pyramid, shape.out, level, rows, right),
        LineAtoms(pyramid, shape.in_, level, cols, bottom),
    )


@dataclass(frozen=True)
class Touched:
    """The cells of a matrix that some coefficients touch, and what each adds to which.

    Args:
        cells: int64 `[U]`, flat, ascending without repetition.
        position: int32 `[K]`, ascending: which of these a term is added to.
        source: int32 `[K]`, the coefficient that it is a part of.
        weight: `[K]`, what this coefficient is multiplied by.
    """

    cells: Tensor
    position: Tensor
    source: Tensor
    weight: Tensor

    def addends(self, values: Tensor) -> Tensor:
        """Return what the coefficients `values` `[n]` add to the cells: `[U]`."""
        terms = values[self.source] * self.weight
        return values.new_zeros(len(self.cells)).index_add(0, self.position, terms)


def touched(
    rows: LineAtoms, cols: LineAtoms, device: torch.device, dtype: torch.dtype, at_most: int
) -> Touched | None:
    """Return what the atoms touch, or None where that is more than `at_most` terms."""
    (row, height), (col, width) = rows.ends(), cols.ends()
    counts = height * width
    if int(counts.sum()) > at_most:
        return None
    source = torch.repeat_interleave(torch.arange(len(counts)), counts)
    within = torch.arange(len(source)) - (counts.cumsum(0) - counts)[source]
    row = row[source] + within // width[source]
    col = col[source] + within % width[source]
    order = torch.argsort(row * cols.size + col, stable=True)
    source, row, col = source[order], row[order], col[order]
    weight = rows.of(source).numbers_at(row) * cols.of(source).numbers_at(col)
    cells, position = torch.unique_consecutive(row * cols.size + col, return_inverse=True)
    return Touched(
        cells.to(device),
        position.int().to(device),
        source.int().to(device),
        weight.to(device, dtype),
    )


def positions_in_cores(rows: LineAtoms, cols: LineAtoms) -> Tensor:
    """Return where coefficients stand in the dense cores of all levels, one after the other."""
    sizes, starts = _cores(rows.pyramid, Shape(rows.size, cols.size))
    width = torch.tensor([size.in_ for size in sizes])[rows.level]
    return torch.tensor(starts)[rows.level] + rows.in_level() * width + cols.in_level()


def dense_matrix(values: Tensor, positions: Tensor, shape: Shape, pyramid: Pyramid) -> Tensor:
    """Return the matrix `[out, in_]` by the filter bank over dense cores, the deepest first.

    Args:
        values: `[n]`.
        positions: int64 `[n]`, as `positions_in_cores` gives them.
        shape: of the matrix.
        pyramid: of both sides.
    """
    bank = pyramid.bank
    sizes, starts = _cores(pyramid, shape)
    flat = values.new_zeros(starts[-1]).index_copy(0, positions, values)
    lines = list(zip(pyramid.sizes(shape.out), pyramid.sizes(shape.in_), strict=True))
    matrix: Tensor | None = None
    for level in reversed(range(pyramid.num_levels)):
        core = flat[starts[level] : starts[level + 1]].view(*sizes[level])
        if matrix is not None:
            core[: matrix.shape[0], : matrix.shape[1]] = matrix
        num_rows, num_cols = lines[level]
        matrix = bank.synthesise(bank.synthesise(core, num_cols).T, num_rows).T
    assert matrix is not None
    return matrix


def _cores(pyramid: Pyramid, shape: Shape) -> tuple[list[Shape], list[int]]:
    """Return the sizes of the cores by level, and where each begins and all end."""
    lines = zip(pyramid.sizes(shape.out), pyramid.sizes(shape.in_), strict=True)
    sizes = [Shape(*(pyramid.bank.num_atoms(line) for line in pair)) for pair in lines]
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + size.out * size.in_)
    return sizes, starts
