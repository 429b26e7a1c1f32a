"""Continuous batching with chunked prefill: what the next step computes, and what came of it.

Pure: no torch, no clock, no thread. A sequence is admitted once its adapter is ready and pages for
its whole length are free, so that it can always run to its end. Sequences whose adapter is still
loading wait aside; the others keep their order of arrival.
"""

from collections import deque
from collections.abc import Sequence as Many
from dataclasses import dataclass

from server.kv_pool import PagePool
from server.sequence import Sampled, Sequence


@dataclass(frozen=True)
class Work:
    """Tokens `start..stop` of a sequence that a step runs through the model.

    `samples` says whether the step ends with a new token for it: these are the last ones it has.
    """

    sequence: Sequence
    start: int
    stop: int
    samples: bool

    @classmethod
    def of(cls, sequence: Sequence, start: int, stop: int) -> "Work":
        """Return the work on these tokens of a sequence as it stands."""
        return cls(sequence, start, stop, stop == len(sequence.tokens))


@dataclass(frozen=True)
class Batch:
    """One step: single tokens of running sequences, then pieces of prompts."""

    decode: tuple[Work, ...]
    prefill: tuple[Work, ...]

    @property
    def works(self) -> tuple[Work, ...]:
        """Return all works in the order of their rows."""
        return self.decode + self.prefill

    @property
    def num_rows(self) -> int:
        """Return how many tokens run through the model."""
        return sum(work.stop - work.start for work in self.works)


class Scheduler:
    """Holds the waiting and the running sequences.

    Args:
        pool: the cache's pages.
        max_rows: tokens in one step; long prompts are cut to fit.
        max_running: sequences that run at a time.
    """

    def __init__(self, pool: PagePool, max_rows: int, max_running: int) -> None:
        self._pool = pool
        self._max_rows = max_rows
        self.max_running = max_running
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        """Accept a sequence; the caller has checked that it fits the pool at all."""
        self.waiting.append(sequence)

    def fits(self, num_tokens: int) -> bool:
        """Return whether a sequence of this length could ever run."""
        return self._pool.pages_for(num_tokens) <= self._pool.num_pages

    def remove(self, sequence: Sequence) -> None:
        """Drop a sequence wherever it stands; nothing happens if it has ended."""
        if sequence in self.running:
            self._end(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def next(self, now: float) -> Batch | None:
        """Return the next step, or None if nothing can run."""
        decode = tuple(
            Work.of(sequence, sequence.num_computed, len(sequence.tokens))
            for sequence in self.running
            if sequence.num_computed == len(sequence.tokens) - 1 and sequence.num_generated
        )
        prefill: list[Work] = []
        budget = self._max_rows - len(decode)
        for sequence in self.running:
            if budget and sequence.num_computed < len(sequence.prompt):
                prefill.append(self._piece(sequence, budget))
                budget -= prefill[-1].stop - prefill[-1].start
        while budget > 0 and (admitted := self._admit(now)):
            prefill.append(self._piece(admitted, budget))
            budget -= prefill[-1].stop - prefill[-1].start
        return Batch(decode, tuple(prefill)) if decode or prefill else None

    def advance(self, batch: Batch, sampled: Many[Sampled]) -> None:
        """Enter a step's results: `sampled` has one token per work that samples, in order."""
        tokens = iter(sampled)
        for work in batch.works:
            work.sequence.num_computed = work.stop
            if work.samples:
                self._enter(work.sequence, next(tokens).token)

    def _enter(self, sequence: Sequence, token: int) -> None:
        sequence.tokens.append(token)
        if token in sequence.sampling.stop_ids:
            sequence.finish_reason = "stop"
        elif sequence.num_generated >= sequence.sampling.max_tokens:
            sequence.finish_reason = "length"
        if sequence.finish_reason:
            self._end(sequence)

    def _admit(self, now: float) -> Sequence | None:
        """Move the first waiting sequence that is ready to the running ones, if it fits."""
        ready = next((s for s in self.waiting if s.is_ready), None)
        if ready is None or len(self.running) >= self.max_running:
            return None
        pages = self._pool.allocate(self._pool.pages_for(ready.max_length))
        if pages is None:
            return None
        ready.pages, ready.admitted = pages, now
        self.waiting.remove(ready)
        self.running.append(ready)
        return ready

    @staticmethod
    def _piece(sequence: Sequence, budget: int) -> Work:
        start = sequence.num_computed
        return Work.of(sequence, start, min(len(sequence.prompt), start + budget))

    def _end(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._pool.release(sequence.pages)
        sequence.pages = []

    def check_integrity(self) -> None:
        """Assert that every page is free or held by exactly one running sequence."""
        held = [page for sequence in self.running for page in sequence.pages]
        assert len(held) == len(set(held)), "two sequences hold one page"
        assert len(held) + self._pool.num_free == self._pool.num_pages, "a page is lost"
        assert not any(sequence.pages for sequence in self.waiting)
