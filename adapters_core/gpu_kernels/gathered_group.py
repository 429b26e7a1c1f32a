"""Launches of the kernels that gather: of wavelets, and of matrices that adapters share."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters_core.contract.kernel_group import KernelGroup
from adapters_core.gpu_kernels.gathered import gather, stretch
from adapters_core.gpu_kernels.running import launch
from adapters_core.gpu_kernels.sliced import SLICE, Atoms, Sliced, one_behind_the_other


class AtomsGroup(KernelGroup):
    """Adds the updates of linears that see the same rows: one launch for all, and one for each.

    Args:
        parts: of each linear.
        offsets: of each linear's coefficients in a bank's row.
    """

    def __init__(self, parts: Sequence[Atoms], offsets: Sequence[int]) -> None:
        super().__init__(len(parts))
        self._reads = one_behind_the_other([part.reads for part in parts])
        self._writes = [part.writes for part in parts]
        factors = [_padded(part.order + at) for part, at in zip(parts, offsets, strict=True)]
        self._factors = torch.cat(factors).int()
        counts = [part.reads.num_slices for part in parts]
        self._firsts = [sum(counts[:number]) for number in range(len(parts) + 1)]

    def begin(self, x: Tensor, bank: Tensor, slots: Tensor, number: int) -> Tensor:
        """Return a run's coefficients times what they read of the rows x `[T, in]`, float32."""
        run = self.runs.of(number)
        first, stop = self._firsts[run.start], self._firsts[run.stop]
        reads = self._reads.part(first, stop)
        factors = self._factors[SLICE * first : SLICE * stop]
        z = x.new_empty(x.shape[0], reads.size, dtype=torch.float32)
        _through(x.contiguous(), reads, _Own(bank, slots, factors), z)
        return z

    def add(
        self, begun: Tensor, number: int, y: Tensor, bank: Tensor, slots: Tensor, adds: bool = True
    ) -> None:
        """Add the update of the linear `number` to y `[T, out]`, or write it there."""
        first = self._firsts[number] - self._firsts[self.runs.of(number).start]
        _through(begun[:, SLICE * first :], self._writes[number], _Own(bank, slots), y, adds)


@dataclass(frozen=True)
class Mixture:
    """A linear whose update is U S V^T, S sparse and in a bank's row.

    Args:
        up: U `[out, in]`.
        core: of S; its numbers say where the layer's packed coefficients have them.
        offset: of these in the bank's row.
    """

    up: Tensor
    core: Sliced
    offset: int


class MixtureGroup(KernelGroup):
    """Adds the updates of linears with one V `[in, in]`: two products' launches and three more."""

    def __init__(self, down: Tensor, parts: Sequence[Mixture]) -> None:
        super().__init__(len(parts))
        self._down, self._parts = down, parts

    def begin(self, x: Tensor, bank: Tensor, slots: Tensor, number: int) -> Tensor:
        """Return the rows x `[T, in]` times V, float32."""
        return x.float() @ self._down

    def add(
        self, begun: Tensor, number: int, y: Tensor, bank: Tensor, slots: Tensor, adds: bool = True
    ) -> None:
        """Add the update of the linear `number` to y `[T, out]`, or write it there."""
        part, mixed = self._parts[number], torch.empty_like(begun)
        _through(begun, part.core, _Own(bank, slots, first=part.offset), mixed)
        update = F.linear(mixed, part.up)
        if adds:
            y.add_(update)
        else:
            y.copy_(update)


@dataclass(frozen=True)
class Stretched:
    """A linear whose update is diag(b) B diag(d) A; a bank's row has b, then d.

    Args:
        up: B `[out, R]`.
        offset: of b.
    """

    up: Tensor
    offset: int


class StretchedGroup(KernelGroup):
    """Adds the updates of linears with one A `[R, in]`: two products' launches and three more."""

    def __init__(self, down: Tensor, parts: Sequence[Stretched]) -> None:
        super().__init__(len(parts))
        self._down, self._parts = down, parts

    def begin(self, x: Tensor, bank: Tensor, slots: Tensor, number: int) -> Tensor:
        """Return A x of the rows x `[T, in]`, float32."""
        return F.linear(x.float(), self._down)

    def add(
        self, begun: Tensor, number: int, y: Tensor, bank: Tensor, slots: Tensor, adds: bool = True
    ) -> None:
        """Add the update of the linear `number` to y `[T, out]`, or write it there."""
        part, hidden = self._parts[number], torch.empty_like(begun)
        _stretched(begun, hidden, bank, slots, part.offset + len(part.up))
        _stretched(F.linear(hidden, part.up), y, bank, slots, part.offset, adds)


@dataclass(frozen=True)
class _Own:
    """What rows read of a bank's rows of their own.

    Args:
        bank: `[slots, width]`.
        slots: int64 `[T]`.
        factors: int32 `[M]`, the column that each cell of a result is multiplied by.
        first: of the columns that a matrix's numbers name.
    """

    bank: Tensor
    slots: Tensor
    factors: Tensor | None = None
    first: int = 0


def _through(x: Tensor, matrix: Sliced, own: _Own, out: Tensor, adds: bool = False) -> None:
    """Write the rows x `[T, N]` through a matrix to `out` `[T, M]`, or add them: one launch."""
    is_own = not matrix.numbers.is_floating_point()
    num_own = (0 if own.factors is None else matrix.size) + is_own * len(matrix.index)
    num_bytes = x.nbytes + (2 if adds else 1) * out.nbytes + matrix.nbytes
    launch(
        gather,
        (x.shape[0], matrix.num_slices),
        num_bytes + num_own * x.shape[0] * own.bank.element_size(),
        x=x,
        out=out,
        bank=own.bank,
        slots=own.slots,
        starts=matrix.starts,
        lengths=matrix.lengths,
        index=matrix.index,
        numbers=matrix.numbers,
        factors=matrix.index if own.factors is None else own.factors,
        width=own.bank.shape[1],
        row_size=x.stride(0),
        size=matrix.size,
        first=own.first,
        IS_OWN=is_own,
        HAS_FACTORS=own.factors is not None,
        ADDS=adds,
        BLOCK=SLICE,
    )


def _stretched(
    x: Tensor, out: Tensor, bank: Tensor, slots: Tensor, first: int, adds: bool = False
) -> None:
    own = x.numel() * bank.element_size()
    launch(
        stretch,
        (x.shape[0], -(-x.shape[1] // SLICE)),
        x.nbytes + own + (2 if adds else 1) * out.nbytes,
        x=x,
        out=out,
        bank=bank,
        slots=slots,
        width=bank.shape[1],
        first=first,
        SIZE=x.shape[1],
        ADDS=adds,
        BLOCK=SLICE,
    )


def _padded(columns: Tensor) -> Tensor:
    """Return int64 `[n]` padded to whole slices."""
    return F.pad(columns, (0, -len(columns) % SLICE))
