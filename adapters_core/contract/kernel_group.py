"""What a method's kernels for a GPU do, in place of `analyse` and `apply`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

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


class KernelGroup(Protocol):
    """Kernels of linears that see the same rows: what these share is computed once.

    Rows whose slot is 0 have no adapter, and get nothing.
    """

    def begin(self, x: Tensor, bank: Tensor, slots: Tensor) -> Any:
        """Return what `add` reads of the rows x `[T, in_]`.

        Args:
            x: the rows.
            bank: `[slots, width]`.
            slots: int64 `[T]`, of each row.
        """

    def add(self, begun: Any, number: int, y: Tensor, bank: Tensor, slots: Tensor) -> None:
        """Add to y `[T, out]` the update of the group's linear `number`."""
