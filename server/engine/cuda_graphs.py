"""Decode steps over static tensors, recorded on a GPU once a shape and replayed from then on.

A step of single tokens takes a few hundred kernels; launching them one by one takes longer than
they run. A recorded step reads its tokens, positions, pages and bank slots from tensors at fixed
addresses. The host fills one table and copies it over; no number is read back from the device.

A recording holds the addresses of banks' buffers and merged weights. It is keyed by them and
forgotten as soon as they are gone: a bank that has grown has another buffer. On a CPU the same
step runs over the same tensors, without a recording.
"""

import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapters_core.contract.rows import Rows
from adapters_core.layers.bank import EMPTY_SLOT, Bank
from adapters_core.layers.serving_plan import FactoredGroup, MergedGroup, ServingPlan
from server.adapters.payload import Factored, Merged
from server.engine.attention_device import DeviceCache, DeviceLayout
from server.engine.step_tensors import payload_of
from server.scheduling.step import Batch, Work

_LOG = logging.getLogger("overtone.graphs")
#: Recordings kept; the least recently used is dropped first. They share one pool of memory.
_MAX_RECORDINGS = 64
#: Steps of more rows are not recorded: their kernels run longer than it takes to launch them.
MAX_ROWS = 512
_IDS, _POSITIONS, _WRITE, _LENGTHS, _IS_LONG, _FIRST_SLOTS = range(6)

#: (ids `[1, T]`, positions `[1, T]`, plan) -> logits `[T, vocabulary]`.
Forward = Callable[[Tensor, Tensor, ServingPlan | None], Tensor]


@dataclass(frozen=True)
class Parts:
    """What the rows of a step read beside the base: banks, or one adapter's merged weights."""

    banks: tuple[Bank, ...] = ()
    buffers: tuple[Tensor, ...] = ()
    merged: Merged | None = None

    @property
    def owners(self) -> tuple[Any, ...]:
        """Return what holds the memory that a recording would point to."""
        return self.buffers if self.merged is None else (self.merged,)


def parts_of(batch: Batch) -> Parts | None:
    """Return what a step of single tokens needs; None if it must be computed row group by group."""
    if batch.prefill or not batch.decode or len(batch.decode) > MAX_ROWS:
        return None
    payloads = [payload_of(work) for work in batch.decode]
    merged = [payload for payload in payloads if isinstance(payload, Merged)]
    if merged:
        alone = all(payload is merged[0] for payload in payloads)
        return Parts(merged=merged[0]) if alone else None
    own = [payload for payload in payloads if isinstance(payload, Factored)]
    if any(payload.weights for payload in own):
        return None
    banks = {id(payload.bank): payload.bank for payload in own}
    ordered = tuple(banks[key] for key in sorted(banks))
    # Held until the step is over: a loader may put a larger buffer in a bank's place meanwhile.
    return Parts(ordered, tuple(bank.buffer for bank in ordered))


def padded_rows(count: int) -> int:
    """Return how many rows a recording for `count` has: 4, 8, then multiples of eight."""
    return 4 if count <= 4 else -(-count // 8) * 8


def padded_pages(count: int) -> int:
    """Return how many pages a recording for `count` looks at: the next power of two."""
    return 1 << (count - 1).bit_length()


class StaticStep:
    """The tensors that a recorded step reads: one table on the device and its twin on the host.

    Args:
        rows: of the step; those behind a batch's own write to page 0 and have no adapter.
        pages: that a sequence may have.
        num_banks: banks with a row of slots in the table.
        page_size: of the cache.
        device: where the step runs.
    """

    def __init__(
        self, rows: int, pages: int, num_banks: int, page_size: int, device: torch.device
    ) -> None:
        self.rows, self._num_banks, self._page_size = rows, num_banks, page_size
        shape = (_FIRST_SLOTS + num_banks + pages, rows)
        self._host = torch.zeros(shape, dtype=torch.int64, pin_memory=device.type == "cuda")
        self._table = torch.zeros(shape, dtype=torch.int64, device=device)
        self._starts = torch.arange(rows + 1, dtype=torch.int32, device=device)
        is_gpu = device.type == "cuda"
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
        return self._table[_FIRST_SLOTS + bank]

    def layout(self) -> DeviceLayout:
        """Return the step's layout; part of what is recorded, since it computes on the device."""
        return DeviceLayout(
            write=self._table[_WRITE],
            pages=self._table[_FIRST_SLOTS + self._num_banks :].t().int().contiguous(),
            lengths=self._table[_LENGTHS].int(),
            starts=self._starts,
            num_single=self.rows,
            is_long=self._table[_IS_LONG : _IS_LONG + 1].bool(),
        )

    def fill(self, works: tuple[Work, ...], banks: tuple[Bank, ...]) -> None:
        """Enter a step's numbers; the copy is under way when this returns."""
        if self._copied is not None:
            self._copied.synchronize()  # the last step's, long since done if its tokens were read
        table = self._host.numpy()
        table[:] = 0
        table[_LENGTHS] = 1
        table[_FIRST_SLOTS : _FIRST_SLOTS + self._num_banks] = EMPTY_SLOT
        table[_WRITE] = range(self.rows)
        table[_WRITE] %= self._page_size
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
                table[_FIRST_SLOTS + banks.index(payload.bank), row] = payload.slot
            first = _FIRST_SLOTS + self._num_banks
            table[first : first + len(used), row] = used
        self._table.copy_(self._host, non_blocking=True)
        if self._copied is not None:
            self._copied.record()

    def plan(self, parts: Parts) -> ServingPlan | None:
        """Return what the rows get; a new one for every run, since it remembers what it saw."""
        if parts.merged is not None:
            return ServingPlan(merged=[MergedGroup(parts.merged.weights, None)], num_rows=self.rows)
        groups = [
            FactoredGroup(bank, Rows(self.slots(number), self.rows), None)
            for number, bank in enumerate(parts.banks)
        ]
        return ServingPlan(factored=groups, num_rows=self.rows) if groups else None


@dataclass
class _Recorded:
    """A step of one shape: its tensors, and what replays it once it was recorded."""

    step: StaticStep
    owners: tuple[weakref.ref[Any], ...]
    replay: Callable[[], Tensor] | None = None
    runs: int = 0
    is_refused: bool = False

    def fits(self, parts: Parts) -> bool:
        alive = tuple(owner() for owner in self.owners)
        return all(a is b for a, b in zip(alive, parts.owners, strict=True))


class DecodeGraphs:
    """Runs steps of single tokens over static tensors.

    Args:
        forward: the model's forward pass; its kernels are recorded.
        cache: of keys and values.
        device: where it runs.
        record: makes a recording of a function; None where there is none (CPU).
    """

    def __init__(
        self,
        forward: Forward,
        cache: DeviceCache,
        device: torch.device,
        record: Callable[[Callable[[], Tensor]], Callable[[], Tensor]] | None = None,
    ) -> None:
        self._forward = forward
        self._cache = cache
        self._device = device
        self._record = CudaRecorder() if device.type == "cuda" else record
        self._recorded: OrderedDict[Hashable, _Recorded] = OrderedDict()

    @property
    def num_recordings(self) -> int:
        """Return how many shapes are replayed."""
        return sum(entry.replay is not None for entry in self._recorded.values())

    def logits(self, batch: Batch) -> Tensor | None:
        """Return the logits `[B, vocabulary]` of the works that sample; None: it is not recorded.

        The next step overwrites them.
        """
        parts = parts_of(batch)
        if parts is None:
            return None
        entry = self._entry(batch.decode, parts)
        entry.step.fill(batch.decode, parts.banks)
        rows = self._run(entry, parts)
        sampled = [i for i, work in enumerate(batch.decode) if work.samples]
        if len(sampled) == len(batch.decode):
            return rows[: len(sampled)]
        return rows[torch.tensor(sampled, dtype=torch.long, device=rows.device)]

    def _entry(self, works: tuple[Work, ...], parts: Parts) -> _Recorded:
        rows = padded_rows(len(works))
        longest = max(work.start for work in works)
        pages = padded_pages(longest // self._cache.page_size + 1)
        key = (rows, pages, tuple(id(owner) for owner in parts.owners))
        entry = self._recorded.pop(key, None)
        if entry is None or not entry.fits(parts):
            self._forget_stale()
            step = StaticStep(rows, pages, len(parts.banks), self._cache.page_size, self._device)
            entry = _Recorded(step, tuple(weakref.ref(owner) for owner in parts.owners))
        self._recorded[key] = entry
        while len(self._recorded) > _MAX_RECORDINGS:
            self._recorded.popitem(last=False)
        return entry

    def _forget_stale(self) -> None:
        for key, entry in list(self._recorded.items()):
            if any(owner() is None for owner in entry.owners):
                del self._recorded[key]

    def _run(self, entry: _Recorded, parts: Parts) -> Tensor:
        def run() -> Tensor:
            self._cache.on_device = entry.step.layout()
            step = entry.step
            return self._forward(step.ids, step.positions, step.plan(parts))

        entry.runs += 1
        # The first run is not recorded: it may be the only one, and it makes plans.
        wanted = self._record is not None and entry.runs > 1 and not entry.is_refused
        if entry.replay is None and wanted:
            self._try_to_record(entry, parts, run)
        return run() if entry.replay is None else entry.replay()

    def _try_to_record(self, entry: _Recorded, parts: Parts, run: Callable[[], Tensor]) -> None:
        assert self._record is not None
        try:
            replay = self._record(run)
        except RuntimeError as error:
            entry.is_refused = True
            _LOG.warning("a step of %d rows cannot be recorded: %s", entry.step.rows, error)
            return
        # A bank that grew meanwhile was recorded with its new buffer, which is not in the key.
        if all(bank.buffer is own for bank, own in zip(parts.banks, parts.buffers, strict=True)):
            entry.replay = replay


class CudaRecorder:
    """Records a function's launches as a CUDA graph; all recordings share a pool of memory."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Return a function that replays `run`; it overwrites the tensors that `run` returned."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()  # libraries set up what they need for this stream
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Loaders' threads may allocate meanwhile: only this thread's calls are restricted.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"
        ):
            out = run()
        self._pool = graph.pool()

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay
