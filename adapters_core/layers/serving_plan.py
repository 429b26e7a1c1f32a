"""The serving plan: rows of different adapters, merged and factored, in one forward pass."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from adapters_core.base.module_rows import ModuleRows, RowsNotKnown, put_back, put_in
from adapters_core.contract.rows import Rows
from adapters_core.layers.bank import Bank
from adapters_core.layers.beside import UpdatesBeside
from adapters_core.layers.experts import AdaptedExperts
from adapters_core.layers.last_rows import LastRows
from adapters_core.layers.linear import AdaptedLayer


@dataclass(frozen=True)
class MergedGroup:
    """Rows that go through one adapter's own weights.

    Args:
        weights: target -> merged weight `[out, in]`; other targets keep the base's.
        index: int64, the batch rows, padded to a multiple of four by repeating the last; None
            stands for all rows.
        mask: bool `[T, 1]`, which of all rows are the group's, in place of an index: in a step of
            fixed form, whose other rows go through the weights as well. All groups of a plan have
            one, or none has.
    """

    weights: Mapping[str, Tensor]
    index: Tensor | None
    mask: Tensor | None = None


@dataclass(frozen=True)
class FactoredGroup:
    """Rows of adapters that share a bank; `index` None stands for all rows, in order.

    `slots`: int64 `[T]` of all rows of the step, for kernels: the empty slot for rows of others
    and for padding. None: `rows` are all of them, or nothing is left to kernels.
    """

    bank: Bank
    rows: Rows
    index: Tensor | None
    slots: Tensor | None = None
    _last: LastRows = field(default_factory=LastRows, repr=False, compare=False)

    def begin(self, layer: AdaptedLayer, x: Tensor) -> None:
        """Begin on the rows x `[T, in]` what a device can do beside the base's own product."""
        kernels = self.kernels_of(layer)
        if kernels is not None:
            kernels.begin(layer, x)

    def add_to(self, y: Tensor, layer: AdaptedLayer, x: Tensor) -> Tensor:
        """Return y `[T, out]` with the updates of the group's rows of x; y may be written over."""
        kernels = self.kernels_of(layer)
        if kernels is not None:
            return kernels.add_to(y, layer)
        update = self.update(layer.path, x)
        if update is None:
            return y
        update = layer.scaled(update.to(y.dtype))
        return y.add_(update) if self.index is None else y.index_add_(0, self.index, update)

    def update(self, path: str, x: Tensor) -> Tensor | None:
        """Return torch's way to what is added to the group's rows of x; None: `path` has none."""
        if path not in self.bank.layout.parts:
            return None
        return self.bank.apply_analysed(path, self._analysed(path, x), self.rows)

    def kernels_of(self, layer: AdaptedLayer) -> UpdatesBeside | None:
        """Return the kernels that add a layer's update, if any does; they take all rows."""
        kernels = self._kernels
        return kernels if kernels is not None and kernels.has(layer) else None

    @cached_property
    def _kernels(self) -> UpdatesBeside | None:
        is_whole = self.index is None or self.slots is not None
        if not is_whole or not self.bank.has_kernels:
            return None
        return UpdatesBeside(self.bank, self.rows.slots if self.slots is None else self.slots)

    def _analysed(self, path: str, x: Tensor) -> Any:
        last, key = self._last, self.bank.analysis_key(path)
        if key is None:
            return self.bank.analyse(path, self._rows_of(x))
        if not last.are(x, key):
            last.put(x, key, self.bank.analyse(path, self._rows_of(x)))
        return last.made

    def _rows_of(self, x: Tensor) -> Tensor:
        return x if self.index is None else x[self.index]


@dataclass(frozen=True)
class ServingPlan:
    """What each row of one step gets.

    Args:
        base: int64 rows that are not merged, padded as above; read only if `merged` is not empty.
        merged: their rows and `base` cover the batch.
        factored: updates added on top of the base's answer.
        num_rows: of the step, padding included; a linear that is given another number of rows
            raises rather than mixing adapters up. 0: not known, nothing is checked.
        kept: what the rows get whose logits are wanted, for linears that see no others; None
            where all rows are wanted.
    """

    base: Tensor | None = None
    merged: Sequence[MergedGroup] = ()
    factored: Sequence[FactoredGroup] = ()
    num_rows: int = 0
    kept: "ServingPlan | None" = None

    @cached_property
    def _paths(self) -> frozenset[str]:
        """Return the linears that any row changes."""
        mappings: list[Mapping[str, object]] = [group.weights for group in self.merged]
        mappings += [group.bank.layout.parts for group in self.factored]
        return frozenset(path for mapping in mappings for path in mapping)

    def changes(self, paths: Collection[str]) -> bool:
        """Return whether any row gets something on one of these linears."""
        return not self._paths.isdisjoint(paths)

    def forward(self, layer: AdaptedLayer, x: Tensor) -> Tensor:
        """Return `[T, out]` for x `[T, in]`, or for tokens x `[T]` of an embedding.

        Raises:
            RowsNotKnown: x has other rows than the step.
        """
        if layer.path not in self._paths:
            untouched: Tensor = layer.base(x)
            return untouched
        if layer.sees_kept and self.kept is not None:
            return self.kept.forward(layer, x)
        self._check_rows(layer.path, x.shape[0])
        if self._has_kernels:
            return self._by_kernels(layer, x)
        y = self._base_and_merged(layer, x)
        for group in self.factored:
            y = group.add_to(y, layer, x)
        return y

    @cached_property
    def _has_kernels(self) -> bool:
        return any(group.bank.has_kernels for group in self.factored)

    def _by_kernels(self, layer: AdaptedLayer, x: Tensor) -> Tensor:
        """Return the answer where kernels add updates; those of one bank beside the product."""
        found = (group.kernels_of(layer) for group in self.factored if not self.merged)
        beside = next(filter(None, found), None)
        groups = [
            group
            for group in self.factored
            if beside is None or group.kernels_of(layer) is not beside
        ]
        for group in groups:
            group.begin(layer, x)
        y = self._base_and_merged(layer, x) if beside is None else beside.answer(layer, x)
        for group in groups:
            y = group.add_to(y, layer, x)
        return y

    def forward_module(self, module: AdaptedExperts, rows: ModuleRows) -> Any:
        """Return a module's answer, each row through its own adapter's matrices.

        Raises:
            RowsNotKnown: a tensor among the arguments has other rows than the step.
        """
        if all(module.stacks.keys().isdisjoint(group.weights) for group in self.merged):
            return module.base_rows(rows)
        for count in rows.counts:
            self._check_rows(module.path, count)
        if self.merged[0].mask is not None:
            return self._masked_module(module, rows)
        if self.merged[0].index is None:
            return module.rows_with(self.merged[0].weights, rows)
        parts = [
            (index, module.rows_with(weights, rows.at(index))) for index, weights in self._split()
        ]
        return put_back(parts, max(rows.counts))

    def _split(self) -> Iterator[tuple[Tensor, Mapping[str, Tensor]]]:
        """Yield the rows of the base, with no weights, and of each merged group."""
        if self.base is not None:
            yield self.base, {}
        for group in self.merged:
            assert group.index is not None
            yield group.index, group.weights

    def _check_rows(self, path: str, count: int) -> None:
        if self.num_rows and count != self.num_rows:
            raise RowsNotKnown(
                f"{path} was given {count} rows in a step of {self.num_rows}: which "
                "adapter each of them belongs to is not known"
            )

    def _base_and_merged(self, layer: AdaptedLayer, x: Tensor) -> Tensor:
        groups = self.merged
        if all(layer.path not in group.weights for group in groups):
            return layer.base_rows(x)
        if groups[0].mask is not None:
            return self._masked(layer, x)
        if len(groups) == 1 and groups[0].index is None:
            return layer.rows_with(groups[0].weights[layer.path], x)
        y = torch.empty(x.shape[0], layer.shape.out, dtype=layer.weight.dtype, device=x.device)
        for index, weights in self._split():
            weight = weights.get(layer.path)
            rows = x[index]
            y[index] = layer.base_rows(rows) if weight is None else layer.rows_with(weight, rows)
        return y

    def _masked(self, layer: AdaptedLayer, x: Tensor) -> Tensor:
        """Return every row's answer by the weights of its group, or else by the base's."""
        y = layer.base_rows(x)
        for group in self.merged:
            weight = group.weights.get(layer.path)
            if weight is not None:
                assert group.mask is not None
                y = torch.where(group.mask, layer.rows_with(weight, x), y)
        return y

    def _masked_module(self, module: AdaptedExperts, rows: ModuleRows) -> Any:
        y = module.base_rows(rows)
        for group in self.merged:
            if not module.stacks.keys().isdisjoint(group.weights):
                assert group.mask is not None
                y = put_in(group.mask, module.rows_with(group.weights, rows), y)
        return y
