"""The serving plan: rows of different adapters, merged and factored, in one forward pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from adapters_core.bank import Bank
from adapters_core.linear import AdaptedLinear
from adapters_core.method import Rows


@dataclass(frozen=True)
class MergedGroup:
    """Rows that go through one adapter's own weights.

    Args:
        weights: target -> merged weight `[out, in]`; other targets keep the base's.
        index: int64, the batch rows, padded to a multiple of four by repeating the last; None
            stands for all rows.
    """

    weights: Mapping[str, Tensor]
    index: Tensor | None


@dataclass(frozen=True)
class FactoredGroup:
    """Rows whose adapters share a bank; `index` None stands for all rows, in order."""

    bank: Bank
    rows: Rows
    index: Tensor | None


@dataclass(frozen=True)
class ServingPlan:
    """What each row of one step gets.

    Args:
        base: int64 rows that are not merged, padded as above; read only if `merged` is not empty.
        merged: their rows and `base` cover the batch.
        factored: updates added on top of the base's answer.
    """

    base: Tensor | None = None
    merged: Sequence[MergedGroup] = ()
    factored: Sequence[FactoredGroup] = ()

    def forward(self, linear: AdaptedLinear, x: Tensor) -> Tensor:
        """Return `[T, out]` for x `[T, in]`."""
        if len(self.merged) == 1 and self.merged[0].index is None:
            return F.linear(x, self._weight(self.merged[0], linear), linear.bias())
        y = self._base_and_merged(linear, x) if self.merged else linear.base_rows(x)
        for group in self.factored:
            rows = x if group.index is None else x[group.index]
            update = group.bank.apply(linear.path, rows, group.rows)
            if update is None:
                continue
            y = y.add_(update) if group.index is None else y.index_add_(0, group.index, update)
        return y

    def _base_and_merged(self, linear: AdaptedLinear, x: Tensor) -> Tensor:
        y = x.new_empty(x.shape[0], linear.shape.out)
        if self.base is not None:
            y[self.base] = linear.base_rows(x[self.base])
        for group in self.merged:
            assert group.index is not None
            y[group.index] = F.linear(x[group.index], self._weight(group, linear), linear.bias())
        return y

    @staticmethod
    def _weight(group: MergedGroup, linear: AdaptedLinear) -> Tensor:
        return group.weights.get(linear.path, linear.golden())
