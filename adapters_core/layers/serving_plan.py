"""The serving plan: rows of different adapters, merged and factored, in one forward pass."""

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from adapters_core.base.module_rows import ModuleRows, RowsNotKnown, put_back, put_in
from adapters_core.contract.kernel_group import KernelGroup
from adapters_core.contract.rows import Rows
from adapters_core.layers.bank import Bank
from adapters_core.layers.experts import AdaptedExperts
from adapters_core.layers.linear import AdaptedLayer
from adapters_core.layers.side_stream import SideStream


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


@dataclass
class _LastAnalysis:
    """The analysis of the rows that the last linear saw.

    q, k and v see the same rows, and so do gate and up. Holding on to x keeps its memory from
    being used for another tensor, so the same address means the same rows.
    """

    x: Tensor | None = None
    key: Hashable = None
    analysed: Any = None

    def is_of(self, x: Tensor, key: Hashable) -> bool:
        """Return whether it is that of the rows x by the key."""
        return self.x is not None and self.key == key and _same_memory(self.x, x)


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
    _last: _LastAnalysis = field(default_factory=_LastAnalysis, repr=False, compare=False)
    _side: SideStream = field(default_factory=SideStream, repr=False, compare=False)

    def begin(self, layer: AdaptedLayer, x: Tensor) -> None:
        """Begin on the rows x `[T, in]` what a device can do beside the base's own product."""
        found = self._kernels(layer)
        if found is None:
            return
        (kernels, number), last = found, self._last
        key = (kernels, kernels.runs.of(number).start)
        if last.is_of(x, key):
            return
        if last.key == key:
            kernels.runs.split(number)
        with self._side.forked(x.device):
            begun = kernels.begin(x, self.bank.buffer, self._slots, number)
        last.x, last.key, last.analysed = x, (kernels, kernels.runs.of(number).start), begun

    def add_to(self, y: Tensor, layer: AdaptedLayer, x: Tensor) -> Tensor:
        """Return y `[T, out]` with the updates of the group's rows of x; y may be written over."""
        found = self._kernels(layer)
        if found is not None:
            kernels, number = found
            self._side.join()
            kernels.add(self._last.analysed, number, y, self.bank.buffer, self._slots)
            return y
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

    def _kernels(self, layer: AdaptedLayer) -> tuple[KernelGroup, int] | None:
        """Return the layer's kernels; they take all rows of a step."""
        is_whole = self.index is None or self.slots is not None
        return self.bank.kernels_of(layer.path) if is_whole and not layer.is_looked_up else None

    @property
    def _slots(self) -> Tensor:
        return self.rows.slots if self.slots is None else self.slots

    def _analysed(self, path: str, x: Tensor) -> Any:
        last, key = self._last, self.bank.analysis_key(path)
        if key is None:
            return self.bank.analyse(path, self._rows_of(x))
        if not last.is_of(x, key):
            last.x, last.key = x, key
            last.analysed = self.bank.analyse(path, self._rows_of(x))
        return last.analysed

    def _rows_of(self, x: Tensor) -> Tensor:
        return x if self.index is None else x[self.index]


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()


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
        for group in self.factored:
            group.begin(layer, x)
        y = self._base_and_merged(layer, x)
        for group in self.factored:
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
