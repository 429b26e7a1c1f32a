"""Decode steps over static tensors, recorded on a GPU once a form and replayed from then on.

A step of single tokens takes a few hundred kernels; launching them one by one takes longer than
they run. A recorded step reads its tokens, positions, pages and bank slots from tensors at fixed
addresses (static_step.py). On a CPU the same step runs over the same tensors, without a recording.

A recording holds the addresses of banks' buffers and merged weights, and is not replayed once one
of them is gone: a bank that has grown has another buffer. It stays until all recordings end
together (recordings.py), which they do when there are too many.

Steps of other banks do not need recordings of their own: one with further banks serves them, where
kernels leave rows without an adapter at once.
"""

import logging
import time
import weakref
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters_core.layers.bank import Bank
from adapters_core.layers.serving_plan import ServingPlan
from adapters_core.layers.uploads import sent
from server.engine.attention_device import DeviceCache
from server.engine.recordings import Recordings
from server.engine.static_step import (
    Parts,
    StaticStep,
    padded_pages,
    padded_rows,
    parts_of,
    row_counts,
)
from server.scheduling.step import Batch

_LOG = logging.getLogger("overtone.graphs")
#: Recordings of a generation, those that are not replayed any more among them.
_MAX_RECORDINGS = 128
#: Forms that came too rarely to be recorded; beyond these all are forgotten.
_MAX_UNRECORDED = 64
#: Runs until a form is recorded. One with merged weights among others ends with any of their rows.
_RUNS, _RUNS_MIXED = 2, 8
#: Pages of the longest sequence in steps that are recorded at start: further ones are rarer.
_PAGES_AT_START = (4, 8, 16, 32)
#: Seconds that recording at start may take; no further one is begun afterwards.
_START_S = 10.0

#: (ids `[1, T]`, positions `[1, T]`, plan) -> logits `[T, vocabulary]`.
Forward = Callable[[Tensor, Tensor, ServingPlan | None], Tensor]


@dataclass(frozen=True)
class _Form:
    """What must be equal for one recording to serve two steps; banks may differ."""

    rows: int
    pages: int
    merged: tuple[int, ...] = ()
    is_alone: bool = False


class _Recorded:
    """A step of one form: its tensors, and what replays it once it was recorded."""

    def __init__(self, step: StaticStep, parts: Parts) -> None:
        self.step = step
        self.replay: Callable[[], Tensor] | None = None
        self.runs = 0
        self._is_alone = parts.is_alone
        owners = (parts.banks, parts.buffers, parts.merged)
        self._owners = [[weakref.ref(owner) for owner in each] for each in owners]

    def parts(self) -> Parts | None:
        """Return what it reads; None if any of that is gone."""
        banks, buffers, merged = (tuple(ref() for ref in each) for each in self._owners)
        if any(owner is None for owner in (*banks, *buffers, *merged)):
            return None
        return Parts(banks, buffers, merged, self._is_alone)  # type: ignore[arg-type]

    def serves(self, wanted: Parts, own: Parts) -> bool:
        """Return whether it reads what a step wants, and nothing more than kernels pass over."""
        buffers = {id(bank): buffer for bank, buffer in zip(own.banks, own.buffers, strict=True)}
        pairs = zip(wanted.banks, wanted.buffers, strict=True)
        if any(buffers.pop(id(bank), None) is not buffer for bank, buffer in pairs):
            return False
        spare = [bank for bank in own.banks if id(bank) in buffers]
        return not spare or self.replay is not None and all(map(_is_by_kernels, spare))


def _is_by_kernels(bank: Bank) -> bool:
    return all(bank.kernels_of(target) is not None for target in bank.layout.parts)


class DecodeGraphs:
    """Runs steps of single tokens over static tensors.

    Args:
        forward: the model's forward pass; its kernels are recorded.
        cache: of keys and values.
        device: where it runs.
        recordings: makes them; None where there are none (CPU), or not yet.
    """

    def __init__(
        self,
        forward: Forward,
        cache: DeviceCache,
        device: torch.device,
        recordings: Recordings | None = None,
    ) -> None:
        self._forward = forward
        self._cache = cache
        self._device = device
        self.recordings = recordings
        self._live: dict[Hashable, list[_Recorded]] = {}
        self._stale: list[_Recorded] = []
        self._generation = 0
        # Buffers that the last step reads; it is over once the next one begins.
        self._held: tuple[Tensor, ...] = ()

    @property
    def num_recordings(self) -> int:
        """Return how many recordings may be replayed."""
        return sum(entry.replay is not None for entry in self._entries())

    def prepare(self, most_rows: int) -> None:
        """Record the base's steps of up to so many rows, before the first request."""
        if self.recordings is None or self.recordings.failure:
            return
        self._forget_ended()
        begun = time.monotonic()
        forms = [_Form(rows, pages) for pages in _PAGES_AT_START for rows in row_counts(most_rows)]
        for number, form in enumerate(forms):
            if time.monotonic() - begun > _START_S or self.recordings.failure:
                _LOG.info("%d of %d forms of steps are recorded", number, len(forms))
                return
            if number % len(row_counts(most_rows)) == 0:
                _LOG.info("recording steps of %d pages", form.pages)
            entry = self._new(form, Parts())
            entry.step.fill((), Parts())
            self._record(entry, Parts())
        seconds = time.monotonic() - begun
        _LOG.info("recorded steps of %d forms in %.1f s", len(forms), seconds)

    def logits(self, batch: Batch) -> Tensor | None:
        """Return the logits `[B, vocabulary]` of the works that sample; None: no fixed form.

        The next step overwrites them.
        """
        self._held = ()
        self._forget_ended()
        parts = parts_of(batch)
        if parts is None:
            return None
        entry, own = self._entry(batch, parts)
        self._held = parts.buffers + own.buffers
        entry.step.fill(batch.decode, own)
        rows = self._run(entry, own)
        sampled = [i for i, work in enumerate(batch.decode) if work.samples]
        if len(sampled) == len(batch.decode):
            return rows[: len(sampled)]
        return rows[sent(torch.tensor(sampled, dtype=torch.long), rows.device)]

    def _entry(self, batch: Batch, parts: Parts) -> tuple[_Recorded, Parts]:
        """Return what runs a step, and what that reads: the step's parts, or more."""
        longest = max(work.start for work in batch.decode)
        form = _Form(
            padded_rows(len(batch.decode)),
            padded_pages(longest // self._cache.page_size + 1),
            tuple(id(payload) for payload in parts.merged),
            parts.is_alone,
        )
        found = [(entry, entry.parts()) for entry in self._live.get(form, [])]
        serving = [(e, own) for e, own in found if own is not None and e.serves(parts, own)]
        if not serving:
            return self._new(form, parts), parts
        # Of those that are recorded the one with the fewest banks.
        return min(serving, key=lambda one: (one[0].replay is None, len(one[1].banks)))

    def _new(self, form: _Form, parts: Parts) -> _Recorded:
        self._make_room()
        numbers = len(parts.banks), len(parts.merged)
        step = StaticStep(form.rows, form.pages, *numbers, self._cache.page_size, self._device)
        entry = _Recorded(step, parts)
        self._live.setdefault(form, []).append(entry)
        return entry

    def _entries(self) -> Iterator[_Recorded]:
        return (entry for entries in self._live.values() for entry in entries)

    def _set_stale_aside(self) -> None:
        """Look no more at what points to memory that is gone."""
        for form, entries in list(self._live.items()):
            gone = [entry for entry in entries if entry.parts() is None]
            if gone:
                self._stale += [entry for entry in gone if entry.replay is not None]
                self._live[form] = [entry for entry in entries if entry not in gone]
            if not self._live[form]:
                del self._live[form]

    def _make_room(self) -> None:
        self._set_stale_aside()
        unrecorded = sum(entry.replay is None for entry in self._entries())
        if unrecorded >= _MAX_UNRECORDED:
            self._live = {
                form: [entry for entry in entries if entry.replay is not None]
                for form, entries in self._live.items()
            }
        if self.num_recordings + len(self._stale) >= _MAX_RECORDINGS:
            self._retire()

    def _retire(self) -> None:
        """End all recordings together; forms that are still in use are recorded again."""
        if self.recordings is not None:
            self.recordings.retire()
            self._forget_ended()

    def _forget_ended(self) -> None:
        """Replay nothing of an earlier generation: another engine may have ended it, too."""
        if self.recordings is None or self.recordings.generation == self._generation:
            return
        self._generation = self.recordings.generation
        for entry in (*self._entries(), *self._stale):
            entry.replay = None
        self._stale = []

    def _run(self, entry: _Recorded, parts: Parts) -> Tensor:
        entry.runs += 1
        # The first run is not recorded: it may be the only one, and it makes plans.
        is_mixed = bool(parts.merged) and not parts.is_alone
        if entry.replay is None and entry.runs >= (_RUNS_MIXED if is_mixed else _RUNS):
            self._record(entry, parts)
        return self._forwarded(entry, parts) if entry.replay is None else entry.replay()

    def _record(self, entry: _Recorded, parts: Parts) -> None:
        if self.recordings is None or self.recordings.failure:
            return
        replay = self.recordings.record(lambda: self._forwarded(entry, parts))
        if replay is None:
            self._retire()  # nothing is replayed after a failure
        # A bank that grew meanwhile was recorded with its new buffer, which the entry knows not.
        if all(bank.buffer is own for bank, own in zip(parts.banks, parts.buffers, strict=True)):
            entry.replay = replay
        elif replay is not None:
            self._stale.append(entry)

    def _forwarded(self, entry: _Recorded, parts: Parts) -> Tensor:
        self._cache.on_device = entry.step.layout()
        return self._forward(entry.step.ids, entry.step.positions, entry.step.plan(parts))
