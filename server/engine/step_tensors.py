"""From a scheduler's batch to tensors: packed rows, cache cells, and what each row's adapter is.

Rows are padded to a multiple, of four at least, with tokens that write to page 0 and belong to no
sequence.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adapters_core.contract.method import Rows, Segment
from adapters_core.contract.rows import padding_of, row_multiple
from adapters_core.layers.bank import EMPTY_SLOT
from adapters_core.layers.serving_plan import FactoredGroup, MergedGroup, ServingPlan
from server.adapters.payload import Factored, Merged
from server.adapters.residency import Entry
from server.engine.attention import Span, StepLayout
from server.engine.step_numbers import StepNumbers
from server.scheduling.step import Batch, Work


@dataclass(frozen=True)
class StepInput:
    """The tensors of one step.

    Args:
        ids, positions: int64 `[1, T]`, T padded.
        wanted: int64 `[B]`, rows whose logits are wanted, padded to a multiple of four: those that
            sample, then those behind which a given token is scored.
        num_wanted: how many of them are real.
    """

    ids: Tensor
    positions: Tensor
    wanted: Tensor
    num_wanted: int
    layout: StepLayout
    plan: ServingPlan | None


@dataclass(frozen=True)
class _PackedWork:
    """A work and the rows that it takes in the step."""

    work: Work
    first: int

    @property
    def rows(self) -> range:
        return range(self.first, self.first + self.work.stop - self.work.start)


def pack(
    batch: Batch,
    page_size: int,
    device: torch.device,
    kept: Collection[str] = (),
    multiple: int = 1,
) -> StepInput:
    """Return the tensors of a step.

    Args:
        batch: of works.
        page_size: of the cache.
        device: where the tensors are to be.
        kept: the base's linears that see only the wanted rows.
        multiple: of rows, a power of two; no less than `row_multiple()` is taken.
    """
    packed, total = _packed(batch)
    missing = -total % max(multiple, row_multiple())
    ids: list[int] = []
    positions: list[int] = []
    for p in packed:
        ids += p.work.sequence.tokens[p.work.start : p.work.stop]
        positions += range(p.work.start, p.work.stop)
    singles = _wanted(packed)
    wanted = [p.first + position - p.work.start for p, position in singles]
    padded = wanted + [total - 1] * padding_of(len(wanted))
    numbers = StepNumbers(device)
    step = StepInput(
        ids=numbers.put([ids + [0] * missing]),
        positions=numbers.put([positions + [0] * missing]),
        wanted=numbers.put(padded),
        num_wanted=len(wanted),
        layout=_layout(packed, len(batch.decode), missing, page_size, numbers),
        plan=_whole_plan(
            _plan(packed, len(batch.decode), total + missing, numbers), singles, numbers, kept
        ),
    )
    numbers.send()
    return step


def _wanted(packed: list[_PackedWork]) -> list[tuple[_PackedWork, int]]:
    """Return the positions whose logits are wanted: those that sample, then the scored ones."""
    sampled = [(p, p.work.stop - 1) for p in packed if p.work.samples]
    return sampled + [(p, position) for p in packed for position in p.work.scored]


def _packed(batch: Batch) -> tuple[list[_PackedWork], int]:
    packed, first = [], 0
    for work in batch.works:
        packed.append(_PackedWork(work, first))
        first += work.stop - work.start
    return packed, first


def _layout(
    packed: list[_PackedWork], num_decode: int, missing: int, page_size: int, numbers: StepNumbers
) -> StepLayout:
    spans = []
    write: list[int] = []
    clear: list[int] = []
    for p in packed:
        pages = tuple(p.work.sequence.pages)
        spans.append(Span(p.first, len(p.rows), p.work.start, pages))
        write += _cells(pages, range(p.work.start, p.work.stop), page_size)
    for span in spans[num_decode:]:
        end = -(-span.length // page_size) * page_size
        clear += _cells(span.pages, range(span.length, end), page_size)
    write += [row % page_size for row in range(missing)]  # page 0
    long = [p.work.sequence.is_long for p in packed for _ in p.rows] + [False] * missing
    return StepLayout(
        decode=tuple(spans[:num_decode]),
        prefill=tuple(spans[num_decode:]),
        write=numbers.put(write),
        clear=numbers.put(clear),
        is_long=numbers.put([long], torch.bool) if any(long) else None,
    )


def _cells(pages: tuple[int, ...], positions: Iterable[int], page_size: int) -> list[int]:
    return [pages[i // page_size] * page_size + i % page_size for i in positions]


def _whole_plan(
    plan: ServingPlan | None,
    singles: list[tuple[_PackedWork, int]],
    numbers: StepNumbers,
    kept: Collection[str],
) -> ServingPlan | None:
    """Return the plan with what the wanted rows get, if that changes `kept` linears."""
    if plan is None or not kept or not plan.changes(kept):
        return plan
    # Each wanted row is one row of its own, like a single token's.
    works = (replace(p.work, start=position, stop=position + 1) for p, position in singles)
    rows = [_PackedWork(work, first) for first, work in enumerate(works)]
    own = _plan(rows, len(rows), len(rows) + padding_of(len(rows)), numbers) if rows else None
    return replace(plan, kept=own or ServingPlan())


def _plan(
    packed: list[_PackedWork], num_decode: int, total: int, numbers: StepNumbers
) -> ServingPlan | None:
    """Return what each row gets; None if every row is the base's own."""
    factored: defaultdict[int, list[_PackedWork]] = defaultdict(list)
    merged: defaultdict[int, list[_PackedWork]] = defaultdict(list)
    base: list[_PackedWork] = []  # those with no merged weights
    for p in packed:
        payload = payload_of(p.work)
        if isinstance(payload, Factored):
            factored[id(payload.bank)].append(p)
        if isinstance(payload, Merged) or isinstance(payload, Factored) and payload.weights:
            merged[id(payload)].append(p)
        else:
            base.append(p)
    if not factored and not merged:
        return None
    last = packed[-1].first + len(packed[-1].rows)
    others = [row for p in base for row in p.rows]
    only = not others and len(merged) == 1
    return ServingPlan(
        base=_index(others + list(range(last, total)), numbers) if merged and not only else None,
        merged=[_merged_group(group, only, numbers) for group in merged.values()],
        factored=[
            _factored_group(group, num_decode, last, total, numbers) for group in factored.values()
        ],
        num_rows=total,
    )


def payload_of(work: Work) -> object:
    """Return the payload of the work's adapter; None for the base itself."""
    lease = work.sequence.lease
    return lease.payload if isinstance(lease, Entry) else None


def _merged_group(group: list[_PackedWork], only: bool, numbers: StepNumbers) -> MergedGroup:
    payload = payload_of(group[0].work)
    assert isinstance(payload, Factored | Merged)
    rows = [row for p in group for row in p.rows]
    return MergedGroup(payload.weights, None if only else _index(rows, numbers))


def _index(rows: list[int], numbers: StepNumbers) -> Tensor | None:
    """Return the rows padded to a multiple of four by repeating the last one."""
    if not rows:
        return None
    return numbers.put(rows + [rows[-1]] * padding_of(len(rows)))


def _factored_group(
    group: list[_PackedWork], num_decode: int, last: int, total: int, numbers: StepNumbers
) -> FactoredGroup:
    """Return one bank's rows; without an index if they are the whole batch, padding included.

    Kernels get the slots of all rows.
    """
    payload = payload_of(group[0].work)
    assert isinstance(payload, Factored)
    slots: list[int] = []
    segments: list[Segment] = []
    single = 0
    for p in group:
        handle = payload_of(p.work)
        assert isinstance(handle, Factored)
        start = len(slots)
        slots += [handle.slot] * len(p.rows)
        # Groups keep the batch's order, so single tokens come first in each of them too.
        if p.first < num_decode:
            single += 1
        else:
            segments.append(Segment(start, len(slots), handle.slot))
    index = None
    if len(slots) < last:
        index = numbers.put([row for p in group for row in p.rows])
    elif total > last:
        segments.append(Segment(last, total, payload.slot))
        slots += [payload.slot] * (total - last)
    rows = Rows(numbers.put(slots), single, tuple(segments))
    of_all = _slots_of_all(group, total, numbers) if payload.bank.has_kernels else None
    return FactoredGroup(payload.bank, rows, index, slots=of_all)


def _slots_of_all(group: list[_PackedWork], total: int, numbers: StepNumbers) -> Tensor:
    """Return the slots of all rows of the step in the group's bank; others have the empty one."""
    slots = [EMPTY_SLOT] * total
    for p in group:
        payload = payload_of(p.work)
        assert isinstance(payload, Factored)
        slots[p.first : p.rows.stop] = [payload.slot] * len(p.rows)
    return numbers.put(slots)
