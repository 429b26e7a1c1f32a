"""Sparse matrices that many rows go through, as kernels read them: sliced ELLPACK.

    out[t, i] = sum_e number[e] x[t, index[e]],   over the entries e of the cell i

Cells of the result stand in slices. All cells of a slice have as many entries as its longest one,
the others padded; the entries lie turned round, so that neighbouring cells read neighbouring
memory. Every cell is summed by one thread, in one order: nothing is scattered, and no bits depend
on which program comes first. Monakov, Lokhmotov, Avetisyan 2010, HiPEAC, LNCS 5952:111.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Cells of a slice, which one program sums.
SLICE = 128


@dataclass(frozen=True)
class Sliced:
    """A sparse matrix.

    Args:
        starts: int64 `[slices]`, the first entry of each slice.
        lengths: int32 `[slices]`, how many entries each cell of it has.
        index: int32 `[E]`, what an entry reads; -1: it pads.
        numbers: float32 `[E]`, what that is multiplied by; or int32, where a bank's row has it.
        size: how many cells the result has.
    """

    starts: Tensor
    lengths: Tensor
    index: Tensor
    numbers: Tensor
    size: int

    @property
    def num_slices(self) -> int:
        """Return how many slices there are."""
        return len(self.starts)

    @property
    def nbytes(self) -> int:
        """Return the bytes of the tables."""
        tables = (self.starts, self.lengths, self.index, self.numbers)
        return sum(table.nbytes for table in tables)

    def part(self, first: int, stop: int) -> "Sliced":
        """Return the slices `first..stop`, all whole; the entries are not copied."""
        starts, lengths = self.starts[first:stop], self.lengths[first:stop]
        return Sliced(starts, lengths, self.index, self.numbers, SLICE * (stop - first))

    def to(self, device: torch.device) -> "Sliced":
        """Return the matrix on a device."""
        starts, lengths = self.starts.to(device), self.lengths.to(device)
        return Sliced(starts, lengths, self.index.to(device), self.numbers.to(device), self.size)


@dataclass(frozen=True)
class Atoms:
    """Coefficients of one linear, each of which reads some cells of a row and adds to others.

    Args:
        reads: how; its result has a cell for each coefficient, by the order of `order`.
        writes: of that result, what each cell of the linear's answer gets.
        order: int64 `[n]`, the packed coefficient of each cell between.
    """

    reads: Sliced
    writes: Sliced
    order: Tensor


def sliced(cells: Tensor, index: Tensor, numbers: Tensor, size: int) -> Sliced:
    """Return the matrix with entries at these places; all tensors are on the CPU.

    Args:
        cells: int64 `[n]`, the cell of the result that each entry is added to.
        index: int64 `[n]`, what it reads.
        numbers: `[n]`, as in `Sliced`.
        size: how many cells the result has.
    """
    order = torch.argsort(cells, stable=True)
    cells = cells[order]
    counts = torch.bincount(cells, minlength=-(-size // SLICE) * SLICE)
    lengths = counts.view(-1, SLICE).amax(dim=1)
    stops = (lengths * SLICE).cumsum(0)
    starts = stops - lengths * SLICE
    number_in_cell = torch.arange(len(cells)) - (counts.cumsum(0) - counts)[cells]
    places = starts[cells // SLICE] + number_in_cell * SLICE + cells % SLICE
    total = int(stops[-1])
    padded_index = torch.full((total,), -1, dtype=torch.int32)
    padded_index[places] = index[order].int()
    padded = numbers.new_zeros(total)
    padded[places] = numbers[order]
    return Sliced(starts, lengths.int(), padded_index, padded, size)


def one_behind_the_other(matrices: Sequence[Sliced]) -> Sliced:
    """Return the matrix whose result has those of all, each padded to whole slices."""
    entries = [len(matrix.index) for matrix in matrices]
    firsts = [sum(entries[:number]) for number in range(len(entries))]
    return Sliced(
        torch.cat([m.starts + first for m, first in zip(matrices, firsts, strict=True)]),
        torch.cat([matrix.lengths for matrix in matrices]),
        torch.cat([matrix.index for matrix in matrices]),
        torch.cat([matrix.numbers for matrix in matrices]),
        sum(SLICE * matrix.num_slices for matrix in matrices),
    )
