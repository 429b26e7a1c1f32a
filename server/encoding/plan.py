"""What each row of an encoder's forward pass gets: every sequence of a batch has its own adapter.

A linear is given `B * n` rows, n of each sequence: its tokens in the body, one in a pooler or a
head. The plan for an n is made when the first linear needs it. A linear over rows that all
sequences share is changed only where all have one adapter, which then applies to every row.
"""

from collections import defaultdict
from collections.abc import Container, Sequence

import torch
from torch import Tensor

from adapters_core.contract.method import Rows, Segment
from adapters_core.contract.rows import pad_rows, padding_of
from adapters_core.layers.bank import EMPTY_SLOT, Bank
from adapters_core.layers.linear import AdaptedLayer
from adapters_core.layers.serving_plan import FactoredGroup, MergedGroup, ServingPlan
from server.adapters.payload import Factored, Merged

Payload = Factored | Merged | None


class EncodingPlan:
    """A `Plan` for one batch.

    Args:
        payloads: of each sequence's adapter; None for the base.
        device: of the rows.
        shared: paths of the linears with rows that all sequences share.
    """

    def __init__(
        self, payloads: Sequence[Payload], device: torch.device, shared: Container[str] = ()
    ) -> None:
        self.payloads = payloads
        self._device = device
        self._shared = shared
        self._plans: dict[int, ServingPlan] = {}

    def forward(self, linear: AdaptedLayer, x: Tensor) -> Tensor:
        """Return `[B * n, out]` for x `[B * n, in]`, computed over a multiple of four rows.

        Raises:
            RuntimeError: the rows are not those of the batch's sequences.
        """
        num_rows, rows = x.shape[0], pad_rows(x)
        if linear.path in self._shared:
            return self._of_all(len(rows)).forward(linear, rows)[:num_rows]
        each, rest = divmod(num_rows, len(self.payloads))
        if rest:
            raise RuntimeError(
                f"{linear.path} was given {num_rows} rows in a batch of {len(self.payloads)}"
            )
        if each not in self._plans:
            self._plans[each] = self._plan(each)
        return self._plans[each].forward(linear, rows)[:num_rows]

    def _of_all(self, num_rows: int) -> ServingPlan:
        """Return the plan of rows that all sequences share: their common adapter, or nothing.

        Adapters that change such a linear have batches of their own (`Group.owner`).
        """
        first = self.payloads[0]
        if any(payload is not first for payload in self.payloads):
            return ServingPlan()
        if isinstance(first, Merged):
            return ServingPlan(merged=[MergedGroup(first.weights, None)])
        if isinstance(first, Factored):
            slots = self._tensor([first.slot] * num_rows)
            rows = Rows(slots, 0, (Segment(0, num_rows, first.slot),))
            return ServingPlan(factored=[FactoredGroup(first.bank, rows, None)])
        return ServingPlan()

    def _plan(self, each: int) -> ServingPlan:
        """Return the plan for `each` rows of every sequence."""
        factored: defaultdict[int, list[int]] = defaultdict(list)
        merged: defaultdict[int, list[int]] = defaultdict(list)
        others: list[int] = []
        for number, payload in enumerate(self.payloads):
            if isinstance(payload, Merged):
                merged[id(payload)].append(number)
                continue
            others.append(number)
            if isinstance(payload, Factored):
                factored[id(payload.bank)].append(number)
        total = each * len(self.payloads)
        padding = list(range(total, total + padding_of(total)))
        base = _rows(others, each) + padding
        return ServingPlan(
            base=self._padded(base) if merged and base else None,
            merged=[self._merged(group, each) for group in merged.values()],
            factored=[self._factored(group, each) for group in factored.values()],
        )

    def _merged(self, group: list[int], each: int) -> MergedGroup:
        payload = self.payloads[group[0]]
        assert isinstance(payload, Merged)
        return MergedGroup(payload.weights, self._padded(_rows(group, each)))

    def _factored(self, group: list[int], each: int) -> FactoredGroup:
        """Return one bank's rows; without an index if they are the whole batch.

        Kernels get the slots of all rows.
        """
        payloads = [self.payloads[number] for number in group]
        slots = [payload.slot for payload in payloads if isinstance(payload, Factored)]
        segments = tuple(Segment(i * each, (i + 1) * each, slot) for i, slot in enumerate(slots))
        of_rows = [slot for slot in slots for _ in range(each)]
        num_decode = len(slots) if each == 1 else 0
        rows = Rows(self._tensor(of_rows), num_decode, () if each == 1 else segments)
        total = each * len(self.payloads)
        is_whole = len(of_rows) == total and padding_of(total) == 0
        first = payloads[0]
        assert isinstance(first, Factored)
        index = None if is_whole else self._tensor(_rows(group, each))
        return FactoredGroup(first.bank, rows, index, self._for_kernels(first.bank, each))

    def _for_kernels(self, bank: Bank, each: int) -> Tensor | None:
        """Return a bank's slots for all rows, padding included; None: it has no kernels."""
        if not bank.has_kernels:
            return None
        slots = [
            payload.slot if isinstance(payload, Factored) and payload.bank is bank else EMPTY_SLOT
            for payload in self.payloads
            for _ in range(each)
        ]
        return self._tensor(slots + [EMPTY_SLOT] * padding_of(len(slots)))

    def _padded(self, rows: list[int]) -> Tensor:
        return self._tensor(rows + [rows[-1]] * padding_of(len(rows)))

    def _tensor(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, device=self._device)


def _rows(sequences: list[int], each: int) -> list[int]:
    return [row for number in sequences for row in range(number * each, (number + 1) * each)]
