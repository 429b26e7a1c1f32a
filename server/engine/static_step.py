"""The tensors of a step of single tokens at fixed addresses, and what such a step consists of.

The host fills one table and copies it over; no number is read back from the device. Its form
follows from few numbers: how many rows and pages it has room for, and which banks and merged
weights its rows read. Rows through merged weights are not picked out, since how many they are
differs from step to step: all rows go through them, and a mask takes those that are theirs. A step
of few rows takes as long as it takes to read its weights.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from adapters_core.contract.rows import Rows
from adapters_core.layers.bank import EMPTY_SLOT, Bank
from adapters_core.layers.serving_plan import FactoredGroup, MergedGroup, ServingPlan
from server.adapters.payload import Factored, Merged
from server.engine.device_layout import DeviceLayout
from server.engine.step_tensors import payload_of
from server.scheduling.step import Batch, Work

#: Steps of more rows are not recorded: their kernels run longer than it takes to launch them.
MAX_ROWS = 512
#: Adapters with weights of their own in one step; all rows go through each one's.
MAX_MERGED = 4
#: Rows through own weights, counted once for each adapter: more of them are work, not reading.
_MAX_MERGED_ROWS = 512
_LEAST_PAGES = 4
_IDS, _POSITIONS, _WRITE, _LENGTHS, _IS_LONG, _FIRST = range(6)


@dataclass(frozen=True)
class Parts:
    """What the rows of a step read beside the base.

    Args:
        banks: of factored rows.
        buffers: theirs, held here: a loader may put a larger one in a bank's place meanwhile.
        merged: payloads with weights of their own.
        is_alone: whether all rows go through the weights of the only one.
    """

    banks: tuple[Bank, ...] = ()
    buffers: tuple[Tensor, ...] = ()
    merged: tuple[Merged | Factored, ...] = ()
    is_alone: bool = False


def parts_of(batch: Batch) -> Parts | None:
    """Return what a step of single tokens needs; None if it has no fixed form."""
    num_rows = len(batch.decode)
    if batch.prefill or not num_rows or num_rows > MAX_ROWS:
        return None
    payloads = [payload_of(work) for work in batch.decode]
    # In order of their addresses, so that the order of the rows makes no difference.
    merged = sorted({id(p): p for p in payloads if _has_weights(p)}.items())
    if len(merged) > MAX_MERGED or len(merged) * num_rows > _MAX_MERGED_ROWS:
        return None
    banks = sorted({id(p.bank): p.bank for p in payloads if isinstance(p, Factored)}.items())
    return Parts(
        tuple(bank for _, bank in banks),
        tuple(bank.buffer for _, bank in banks),
        tuple(payload for _, payload in merged if isinstance(payload, Merged | Factored)),
        len({id(payload) for payload in payloads}) == 1 and bool(merged),
    )


def _has_weights(payload: object) -> bool:
    return isinstance(payload, Merged) or isinstance(payload, Factored) and bool(payload.weights)


def padded_rows(count: int) -> int:
    """Return how many rows a step of fixed form for `count` has: at most a half more, beyond 8."""
    power = 1 << (count - 1).bit_length()
    return next(rows for rows in (4, 8, power * 3 // 4, power) if rows >= count and rows % 4 == 0)


def padded_pages(count: int) -> int:
    """Return how many pages a step of fixed form for `count` looks at: the next power of two."""
    return max(_LEAST_PAGES, 1 << (count - 1).bit_length())


def row_counts(most: int) -> list[int]:
    """Return the numbers of rows of all steps of fixed form for up to `most` rows, descending."""
    return sorted({padded_rows(count) for count in range(1, min(most, MAX_ROWS) + 1)}, reverse=True)


class StaticStep:
    """The tensors that a step of fixed form reads: one table on the device, its twin on the host.

    Args:
        rows: of the step; those behind a batch's own write to page 0 and have no adapter.
        pages: that a sequence may have.
        num_banks: banks with a row of slots in the table.
        num_merged: adapters with a row that marks theirs.
        page_size: of the cache.
        device: where the step runs.
    """

    def __init__(
        self,
        rows: int,
        pages: int,
        num_banks: int,
        num_merged: int,
        page_size: int,
        device: torch.device,
    ) -> None:
        self.rows, self._page_size, self._device = rows, page_size, device
        self._num_banks = num_banks
        self._first_page = _FIRST + num_banks + num_merged
        shape, is_gpu = (self._first_page + pages, rows), device.type == "cuda"
        self._host = torch.zeros(shape, dtype=torch.int64, pin_memory=is_gpu)
        self._table = torch.zeros(shape, dtype=torch.int64, device=device)
        self._starts = torch.arange(rows + 1, dtype=torch.int32, device=device)
        self._copied = torch.cuda.Event() if is_gpu else None  # type: ignore[no-untyped-call]

    @property
    def ids(self) -> Tensor:
        """Return int64 `[1, rows]`."""
        return self._table[_IDS : _IDS + 1]

    @property
    def positions(self) -> Tensor:
        """Return int64 `[1, rows]`."""
        return self._table[_POSITIONS : _POSITIONS + 1]

    def slots(self, bank: int) -> Tensor:
        """Return int64 `[rows]`: each row's slot in a bank, the empty one where it has none."""
        return self._table[_FIRST + bank]

    def mask(self, merged: int) -> Tensor:
        """Return bool `[rows, 1]`: which rows go through a merged adapter's weights."""
        return self._table[_FIRST + self._num_banks + merged, :, None].bool()

    def layout(self) -> DeviceLayout:
        """Return the step's layout; part of what is recorded, since it computes on the device."""
        return DeviceLayout(
            write=self._table[_WRITE],
            pages=self._table[self._first_page :].t().int().contiguous(),
            lengths=self._table[_LENGTHS].int(),
            starts=self._starts,
            num_single=self.rows,
            is_long=self._table[_IS_LONG : _IS_LONG + 1].bool(),
        )

    def fill(self, works: tuple[Work, ...], parts: Parts) -> None:
        """Enter a step's numbers; the copy is under way when this returns."""
        if self._copied is not None:
            self._copied.synchronize()  # the last step's, long since done if its tokens were read
        table = self._host.numpy()
        table[:] = 0
        table[_LENGTHS] = 1
        table[_FIRST : _FIRST + self._num_banks] = EMPTY_SLOT
        table[_WRITE] = range(self.rows)
        table[_WRITE] %= self._page_size
        banks = {id(bank): _FIRST + number for number, bank in enumerate(parts.banks)}
        first = _FIRST + self._num_banks
        merged = {id(payload): first + number for number, payload in enumerate(parts.merged)}
        for row, work in enumerate(works):
            sequence, position = work.sequence, work.start
            used = sequence.pages[: position // self._page_size + 1]
            table[_IDS, row] = sequence.tokens[position]
            table[_POSITIONS, row] = position
            table[_WRITE, row] = used[-1] * self._page_size + position % self._page_size
            table[_LENGTHS, row] = position + 1
            table[_IS_LONG, row] = sequence.is_long
            payload = payload_of(work)
            if isinstance(payload, Factored):
                table[banks[id(payload.bank)], row] = payload.slot
            if id(payload) in merged:
                table[merged[id(payload)], row] = 1
            table[self._first_page : self._first_page + len(used), row] = used
        self._table.copy_(self._host, non_blocking=True)
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(self._device))

    def plan(self, parts: Parts) -> ServingPlan | None:
        """Return what the rows get; a new one for every run, since it remembers what it saw."""
        if not parts.banks and not parts.merged:
            return None
        factored = [
            FactoredGroup(bank, Rows(self.slots(number), self.rows), None)
            for number, bank in enumerate(parts.banks)
        ]
        merged = [
            MergedGroup(payload.weights, None, None if parts.is_alone else self.mask(number))
            for number, payload in enumerate(parts.merged)
        ]
        return ServingPlan(merged=merged, factored=factored, num_rows=self.rows)
