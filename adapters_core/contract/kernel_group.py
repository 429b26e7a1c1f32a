"""What a method's kernels for a GPU do, in place of `analyse` and `apply`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adapters_core.contract.layer import Shape

if TYPE_CHECKING:
    from adapters_core.contract.method import Method


@dataclass(frozen=True)
class BankPart:
    """Where one linear's packed coefficients stand in the rows of a bank; its basis and device."""

    method: "Method"
    shape: Shape
    offset: int
    length: int
    basis: Any
    device: torch.device


class Runs:
    """Which linears of a group see the same rows, as far as was seen: neighbours, in their order.

    Names do not say it: an attention's output projection stands beside those of q, k and v, reads
    as many numbers, and sees other rows.
    """

    def __init__(self, count: int) -> None:
        self._firsts, self._count = [0], count
        self._behind: dict[int, Any] = {}

    def of(self, number: int) -> range:
        """Return the linears that share what is begun with the linear `number`."""
        first = max(one for one in self._firsts if one <= number)
        return range(first, min([one for one in self._firsts if one > number] + [self._count]))

    def split(self, number: int) -> None:
        """Let a run begin with the linear `number`, which got other rows than those before it."""
        if number not in self._firsts:
            self._firsts.append(number)

    def put_behind(self, number: int, layer: Any) -> None:
        """Note that a linear, a layer of the base, saw the rows of one before it."""
        self._behind[number] = layer

    def take_out(self, number: int) -> None:
        """Forget that: the linear was not called, or with other rows."""
        self._behind.pop(number, None)

    def others_behind(self, number: int) -> dict[int, Any]:
        """Return the layers, by number, that are known to see the rows of `number` after it."""
        run = self.of(number)
        return {one: self._behind[one] for one in run if one > number and one in self._behind}


class KernelGroup(ABC):
    """Kernels of linears that see the same rows: what these share is computed once.

    Rows whose slot is 0 have no adapter, and get nothing.
    """

    def __init__(self, count: int) -> None:
        self.runs = Runs(count)

    @abstractmethod
    def begin(self, x: Tensor, bank: Tensor, slots: Tensor, number: int) -> Any:
        """Return what `add` reads of the rows x `[T, in_]`, for all linears of a run.

        Args:
            x: the rows.
            bank: `[slots, width]`.
            slots: int64 `[T]`, of each row.
            number: a linear of the run.
        """

    @abstractmethod
    def add(
        self, begun: Any, number: int, y: Tensor, bank: Tensor, slots: Tensor, adds: bool = True
    ) -> None:
        """Add to y `[T, out]` the update of the group's linear `number`.

        `adds` False: write it there; rows without an adapter get zeros.
        """
