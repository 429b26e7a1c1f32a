"""What the next step computes, and its results' entry: live sequences first, then the background.

Pure: no torch, no clock, no thread. Each class has a lane (lane.py) with its own queue, so that
tenants share each of them fairly; both use the same pages. Background sequences, which are those of
batches, get what live ones leave: rows that cost live ones little (spare_rows.py), slots and pages
that no live one wants. A live sequence that needs pages preempts them; none starts while a live one
waits for room.
"""

import math
from collections.abc import Sequence

from server.scheduling.fair_queue import FairQueue
from server.scheduling.kv_pages import KvPages
from server.scheduling.lane import Lane, Room
from server.scheduling.page_pool import PagePool
from server.scheduling.sequence import Sampled, TokenSequence
from server.scheduling.spare_rows import SpareRows
from server.scheduling.step import Batch

#: Prompt tokens in one step of live tenants that flood a shared server.
_FAIR_ROWS = 32


class Scheduler:
    """Holds the waiting and the running sequences.

    Args:
        pool: the cache's pages.
        max_rows: tokens in one step; long prompts are cut to fit.
        max_running: sequences that run at a time; a tenant with less than its share of them is
            admitted beyond that, and all take turns.
        max_age_s: a sequence that has waited longer is admitted before all others.
        keep_prefixes: whether prompts' pages are kept for prompts that begin the same.
        spare: what the background may have of a step; None: the default share.
    """

    def __init__(
        self,
        pool: PagePool,
        max_rows: int,
        max_running: int,
        max_age_s: float = 30.0,
        keep_prefixes: bool = True,
        spare: SpareRows | None = None,
    ) -> None:
        self._pages = KvPages(pool, keep_prefixes)
        self._max_rows = max_rows
        self._spare = spare or SpareRows(max_rows)
        self.max_running = max_running
        self.background = Lane(self._pages, max_age_s=math.inf)
        self.live = Lane(self._pages, max_age_s, _FAIR_ROWS, self.background)

    @property
    def waiting(self) -> FairQueue:
        """Return the live sequences that wait."""
        return self.live.waiting

    @property
    def running(self) -> list[TokenSequence]:
        """Return the live sequences that run."""
        return self.live.running

    @property
    def num_preemptions(self) -> int:
        """Return how often a sequence was preempted."""
        return self.live.num_preemptions + self.background.num_preemptions

    @property
    def kv_usage(self) -> float:
        """Return the share of the cache that sequences hold; kept prefixes are free."""
        return 1 - self._pages.num_available / self._pages.num_pages

    @property
    def num_pages(self) -> int:
        """Return the pages of the cache."""
        return self._pages.num_pages

    @property
    def page_size(self) -> int:
        """Return the tokens of a page."""
        return self._pages.page_size

    def add(self, sequence: TokenSequence) -> None:
        """Accept a sequence; the caller has checked that it fits the pool at all."""
        self._lane(sequence).waiting.add(sequence)

    def remove(self, sequence: TokenSequence) -> None:
        """Drop a waiting or running sequence; nothing happens if it has ended."""
        self._lane(sequence).remove(sequence)

    @property
    def sequences(self) -> list[TokenSequence]:
        """Return all sequences that wait or run."""
        return [*self.live.sequences, *self.background.sequences]

    def expired(self, now: float) -> list[TokenSequence]:
        """Return the sequences whose deadline has passed."""
        return [one for one in self.sequences if one.deadline is not None and one.deadline <= now]

    def next_deadline(self) -> float | None:
        """Return the earliest deadline, None if there is none."""
        found = (one.deadline for one in self.sequences if one.deadline is not None)
        return min(found, default=None)

    def next(self, now: float) -> Batch | None:
        """Return the next step, or None if nothing can run."""
        self.background.has_given_way = False
        live = self.live.next(Room(self._max_rows, self.max_running), now)
        below = self._beside(live, now)
        batch = Batch(live.decode + below.decode, live.prefill + below.prefill)
        return batch if batch.works else None

    def advance(self, batch: Batch, sampled: Sequence[Sampled]) -> None:
        """Enter a step's results: `sampled` has one token per work that samples, in order."""
        tokens = iter(sampled)
        for work in batch.works:
            token = next(tokens).token if work.samples else None
            self._lane(work.sequence).enter(work, token)

    def observe(self, batch: Batch, seconds: float) -> None:
        """Learn from how long a step took."""
        if not batch.prefill:
            self._spare.observe(batch.num_rows, seconds)

    def _beside(self, live: Batch, now: float) -> Batch:
        """Return the background's part of a step with this live part."""
        if self.live.sequences:
            self._spare.see_live(now)
        num_live = live.num_rows
        rows = self._spare.beside(num_live) if num_live else self._spare.alone(now)
        slots = self.max_running - len(self.live.running)
        if rows <= 0 or slots <= 0 or not self.background.sequences:
            return Batch((), ())
        may_admit = not self.live.is_held_up and not self.background.has_given_way
        room = Room(rows, slots, len(self.live.running), may_admit, may_evict=False)
        part = self.background.next(room, now)
        if num_live:
            self._spare.spend(part.num_rows)
        return part

    def _lane(self, sequence: TokenSequence) -> Lane:
        return self.background if sequence.is_background else self.live

    def check_integrity(self) -> None:
        """Assert that every page is free, kept, or held by exactly one running sequence."""
        self._pages.check_integrity([*self.live.running, *self.background.running])
        waiting = [*self.live.waiting, *self.background.waiting]
        assert not any(sequence.pages for sequence in waiting)
