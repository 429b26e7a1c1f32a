"""Launches of the low-rank kernels for linears that see the same rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters_core.contract.kernel_group import KernelGroup
from adapters_core.contract.layer import Shape
from adapters_core.gpu_kernels.lowrank import narrow, widen
from adapters_core.gpu_kernels.running import launch

#: Ranks and cells that a program narrows a single row to and from.
_NARROWED, _READ = 4, 1024
#: Ranks and cells that a program widens a single row from and to.
_WIDENED, _WRITTEN = 8, 256
#: Neighbours of one slot that share their factors, and cells of theirs that a product takes.
_ROWS, _STEP = 16, 64


@dataclass(frozen=True)
class Factors:
    """Where one linear's factors stand in a bank's row: A `[rank, in]`, B `[rank, out]` behind."""

    shape: Shape
    rank: int
    offset: int

    @property
    def up(self) -> int:
        """Return where B begins."""
        return self.offset + self.rank * self.shape.in_


class LowRankGroup(KernelGroup):
    """Adds the updates of linears that see the same rows: one launch for all, and one for each."""

    def __init__(self, parts: Sequence[Factors], device: torch.device) -> None:
        super().__init__(len(parts))
        self._parts, self._size = parts, parts[0].shape.in_
        starts = [part.offset + k * self._size for part in parts for k in range(part.rank)]
        self._starts = torch.tensor(starts, device=device)
        self._align = math.gcd(16, self._size, *starts)
        self._firsts = [
            sum(part.rank for part in parts[:number]) for number in range(len(parts) + 1)
        ]

    def begin(self, x: Tensor, bank: Tensor, slots: Tensor, number: int) -> Tensor:
        """Return A x `[T, ranks]` of the rows x `[T, in]`, float32, for the ranks of a run."""
        x, run = x.contiguous(), self.runs.of(number)
        starts = self._starts[self._firsts[run.start] : self._firsts[run.stop]]
        num_rows, num_ranks = x.shape[0], len(starts)
        hidden = x.new_empty(num_rows, num_ranks, dtype=torch.float32)
        factors = num_rows * num_ranks * self._size * bank.element_size()
        launch(
            narrow,
            (num_rows, -(-num_ranks // _NARROWED)),
            x.nbytes + factors + hidden.nbytes,
            x=x,
            hidden=hidden,
            bank=bank,
            slots=slots,
            starts=starts,
            width=bank.shape[1],
            num_rows=num_rows,
            num_ranks=num_ranks,
            SIZE=self._size,
            ALIGN=self._align,
            RANKS=_NARROWED,
            BLOCK=min(_READ, max(_STEP, 1 << (self._size - 1).bit_length())),
            ROWS=_ROWS,
            STEP=_STEP,
        )
        return hidden

    def add(
        self, begun: Tensor, number: int, y: Tensor, bank: Tensor, slots: Tensor, adds: bool = True
    ) -> None:
        """Add the update of the linear `number` to y `[T, out]`, or write it there."""
        part, num_rows = self._parts[number], y.shape[0]
        factors = num_rows * part.rank * part.shape.out * bank.element_size()
        launch(
            widen,
            (num_rows, -(-part.shape.out // _WRITTEN)),
            4 * num_rows * part.rank + factors + (2 if adds else 1) * y.nbytes,
            hidden=begun,
            out=y,
            bank=bank,
            slots=slots,
            width=bank.shape[1],
            num_rows=num_rows,
            num_ranks=begun.shape[1],
            first=self._firsts[number] - self._firsts[self.runs.of(number).start],
            start=part.up,
            RANK=part.rank,
            SIZE=part.shape.out,
            RANKS=min(_WIDENED, 1 << (part.rank - 1).bit_length()),
            ADDS=adds,
            BLOCK=_WRITTEN,
            ROWS=_ROWS,
        )
