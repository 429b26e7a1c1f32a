"""Launches of the spectral kernels for linears that see the same rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters_core.contract.kernel_group import KernelGroup
from adapters_core.gpu_kernels.lines import Line
from adapters_core.gpu_kernels.running import launch
from adapters_core.gpu_kernels.spectral import analyse, synthesise

#: Numbers of a line that a program analyses at a time, by so many warps; and without tensor cores,
#: where products take registers for every factor.
_ANALYSED, _WARPS, _ANALYSED_BY_SUMS = 4096, 8, 512
#: Coefficients that it gathers at a time, how often, and those that are sorted at a time: more of
#: these spill registers.
_GATHERED, _TIMES, _SORTED = 256, 4, 32


@dataclass(frozen=True)
class Coefficients:
    """Where one linear's coefficients stand and what they do, in the packed order.

    Args:
        out: the line that they write.
        values: int64 `[n]`, their columns in the bank.
        cols, rows: int64 `[n]`, the frequencies that they read and write; of coefficients with
            positions of their own the columns of the bank that hold these.
        gains: float32 `[n, 2]`, what real and imaginary parts are multiplied by; None for cosines.
    """

    out: Line
    values: Tensor
    cols: Tensor
    rows: Tensor
    gains: Tensor | None = None


class SpectralGroup(KernelGroup):
    """Adds the updates of linears that see the same rows.

    Args:
        in_: the line that all of them read.
        parts: of each linear.
        is_own: whether each adapter has positions of its own.
    """

    def __init__(self, in_: Line, parts: Sequence[Coefficients], is_own: bool) -> None:
        super().__init__(len(parts))
        self._in, self._outs, self._is_own = in_, [part.out for part in parts], is_own
        self._values, self._cols, self._rows = (
            torch.cat([getattr(part, name) for part in parts]).int().contiguous()
            for name in ("values", "cols", "rows")
        )
        gains = [part.gains for part in parts if part.gains is not None]
        self._gains = torch.cat(gains).float().contiguous() if gains else in_.roots
        self._counts = [len(part.values) for part in parts]
        self._firsts = [sum(self._counts[:number]) for number in range(len(parts) + 1)]

    def begin(self, x: Tensor, bank: Tensor, slots: Tensor, number: int) -> Tensor:
        """Return z `[T, K, 2]` of the rows x `[T, N]`, K coefficients of a run: one launch."""
        run, line, num_rows = self.runs.of(number), self._in, x.shape[0]
        first, stop = self._firsts[run.start], self._firsts[run.stop]
        num_values = stop - first
        x = x.contiguous()
        z = x.new_empty(num_rows, num_values, 2, dtype=torch.float32)
        own = (3 if self._is_own else 1) * num_rows * num_values * bank.element_size()
        launch(
            analyse,
            (num_rows, -(-num_values // (_GATHERED * _TIMES))),
            x.nbytes + own + z.nbytes,
            x=x,
            z=z,
            bank=bank,
            slots=slots,
            values=self._values[first:stop],
            cols=self._cols[first:stop],
            gains=self._gains[first:stop],
            tables=line.tables,
            roots=line.roots,
            width=bank.shape[1],
            num_values=num_values,
            scale=math.sqrt(2 / line.size),
            SIZE=line.size,
            PARTS=line.parts,
            A=line.rows,
            B=line.cols,
            IS_COSINE=line.is_cosine,
            IS_OWN=self._is_own,
            BY_DOTS=line.by_dots,
            AT_ONCE=_at_once(line),
            BLOCK=_GATHERED,
            BLOCKS=_TIMES,
            num_warps=_WARPS,
        )
        return z

    def add(
        self, begun: Tensor, number: int, y: Tensor, bank: Tensor, slots: Tensor, adds: bool = True
    ) -> None:
        """Add the update of the linear `number` to y `[T, M]`, or write it there: one launch."""
        line, count, first = self._outs[number], self._counts[number], self._firsts[number]
        launch(
            synthesise,
            (y.shape[0], line.parts),
            8 * y.shape[0] * count + (2 if adds else 1) * y.nbytes,
            z=begun,
            out=y,
            bank=bank,
            slots=slots,
            rows=self._rows[first : first + count],
            tables=line.tables,
            roots=line.roots,
            width=bank.shape[1],
            num_values=begun.shape[1],
            first=first - self._firsts[self.runs.of(number).start],
            scale=math.sqrt(2 / line.size),
            COUNT=count,
            SIZE=line.size,
            PARTS=line.parts,
            A=line.rows,
            B=line.cols,
            IS_COSINE=line.is_cosine,
            IS_OWN=self._is_own,
            BY_DOTS=line.by_dots,
            ADDS=adds,
            BLOCK=_SORTED,
        )


def _at_once(line: Line) -> int:
    """Return how many parts of a line a program analyses at a time, a power of two."""
    most = _ANALYSED if line.by_dots else _ANALYSED_BY_SUMS
    return min(most // line.part_size, 1 << (line.parts - 1).bit_length())
