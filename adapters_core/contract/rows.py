"""The rows of a batch, and the row counts that keep a row's bits.

Matrix products and batched transforms run over a multiple of `row_multiple()` rows.

On some CPUs a float32 GEMM gives a row the same bits whatever stands beside it, as long as the
number of rows is a multiple of four (a shorter tail takes another kernel). On others it takes a
larger multiple, or another setting of the library. invariance.py measures it on the machine at
hand; docs/decisions.md has what was found.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters_core.contract.half_rows import doubled

#: Of the whole process, like torch's number of threads. Set once, before anything is packed.
_multiple = 4


def row_multiple() -> int:
    """Return the multiple of rows that products run over in this process."""
    return _multiple


def set_row_multiple(multiple: int) -> None:
    """Let products run over another multiple of rows; not while a step runs.

    Args:
        multiple: a power of two, 4 or more: batches are cut into pieces of such sizes.
    """
    global _multiple
    assert multiple >= 4, multiple
    assert multiple & (multiple - 1) == 0, multiple
    _multiple = multiple


@dataclass(frozen=True)
class Segment:
    """Rows `start..stop` of one prompt; all of them use the bank's `slot`."""

    start: int
    stop: int
    slot: int


@dataclass(frozen=True)
class Rows:
    """Which bank slot each row of a batch uses.

    Args:
        slots: int64 `[T]`, one slot per row.
        num_decode: rows `0..num_decode` are single tokens, each of another sequence.
        segments: the rest, prompt by prompt, without gaps.
    """

    slots: Tensor
    num_decode: int
    segments: tuple[Segment, ...] = ()

    @cached_property
    def padded_slots(self) -> Tensor:
        """Return the slots of the rows and of those that pad them, int64."""
        return pad_rows(self.slots)


@dataclass(frozen=True)
class PackedLayer:
    """One layer's columns `offset..offset + length` of a bank's `buffer` `[slots, width]`.

    A buffer of float16 has rows in the form of half_rows.py.
    """

    buffer: Tensor
    offset: int
    length: int

    def rows(self) -> Tensor:
        """Return the layer's numbers as the buffer has them, a view `[slots, length]`."""
        return self.buffer[:, self.offset : self.offset + self.length]

    def of(self, slots: Tensor | int) -> Tensor:
        """Return the layer's packed coefficients of one slot `[length]`, or of many `[T, length]`.

        Float32, whatever the buffer is.
        """
        numbers = self.rows()[slots]
        if self.buffer.dtype != torch.float16:
            return numbers
        return doubled(numbers, self.buffer[slots, -1])


def padding_of(num_rows: int) -> int:
    """Return how many rows are missing to the next multiple."""
    return -num_rows % _multiple


def pad_rows(x: Tensor) -> Tensor:
    """Return x `[T, ...]` with zero rows added up to the next multiple."""
    missing = padding_of(x.shape[0])
    if missing == 0:
        return x
    return torch.cat([x, x.new_zeros(missing, *x.shape[1:])])


def padded_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `x @ weight.T + bias` for x `[T, in]`, computed over padded rows."""
    return F.linear(pad_rows(x), weight, bias)[: x.shape[0]]
