"""Continuous batching with chunked prefill: what the next step computes, and its results' entry.

Pure: no torch, no clock, no thread. Running sequences come first, a token each; the rest of the
step's rows goes to prompts, tenant by tenant, the least served first. A sequence is admitted when
its adapter is ready and there are pages for its prompt. When the cache is full, the newest running
sequence is preempted and runs again later: its prompt is computed again, or found as a kept prefix,
and its tokens one by one as before, with the same bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from server.scheduling.fair_queue import GENERATED_WEIGHT, PROMPT_WEIGHT, FairQueue
from server.scheduling.kv_pages import KvPages
from server.scheduling.page_pool import PagePool
from server.scheduling.sequence import Sampled, TokenSequence
from server.scheduling.step import Batch, Work

#: Share of a step's rows that running sequences leave to waiting prompts.
_PROMPT_SHARE = 0.25


@dataclass
class _Plan:
    """The prompts' part of a step while it is made.

    Args:
        resting: tenants that are left out of this step.
        closed: tenants whose prompts get no more rows.
        pieces: of prompts, that the step computes.
        victims: sequences preempted for it; they are not admitted again in the same step.
        is_full: the next sequence does not fit; no other is admitted before it.
    """

    resting: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)
    pieces: list[Work] = field(default_factory=list)
    victims: set[TokenSequence] = field(default_factory=set)
    is_full: bool = False

    def has(self, sequence: TokenSequence) -> bool:
        """Return whether a piece of this sequence is in the step."""
        return any(work.sequence is sequence for work in self.pieces)


class Scheduler:
    """Holds the waiting and the running sequences.

    Args:
        pool: the cache's pages.
        max_rows: tokens in one step; long prompts are cut to fit.
        max_running: sequences that run at a time; a tenant with less than its share of them is
            admitted beyond that, and all take turns.
        max_age_s: a sequence that has waited longer is admitted before all others.
        keep_prefixes: whether prompts' pages are kept for prompts that begin the same.
        fair_rows: prompt tokens in one step of tenants that flood a shared server: short steps
            keep the other tenants' waiting time short.
    """

    def __init__(
        self,
        pool: PagePool,
        max_rows: int,
        max_running: int,
        max_age_s: float = 30.0,
        keep_prefixes: bool = True,
        fair_rows: int = 32,
    ) -> None:
        self._pages = KvPages(pool, keep_prefixes)
        self._max_rows = max_rows
        self._fair_rows = fair_rows
        self.max_running = max_running
        self.waiting = FairQueue(max_age_s)
        self.running: list[TokenSequence] = []
        self.num_preemptions = 0
        self._plan = _Plan()

    def add(self, sequence: TokenSequence) -> None:
        """Accept a sequence; the caller has checked that it fits the pool at all."""
        self.waiting.add(sequence)

    def remove(self, sequence: TokenSequence) -> None:
        """Drop a waiting or running sequence; nothing happens if it has ended."""
        if sequence in self.running:
            self._end(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def expired(self, now: float) -> list[TokenSequence]:
        """Return the sequences whose deadline has passed."""
        sequences = [*self.running, *self.waiting]
        return [one for one in sequences if one.deadline is not None and one.deadline <= now]

    def next_deadline(self) -> float | None:
        """Return the earliest deadline, None if there is none."""
        sequences = [*self.running, *self.waiting]
        return min((one.deadline for one in sequences if one.deadline is not None), default=None)

    def next(self, now: float) -> Batch | None:
        """Return the next step, or None if nothing can run."""
        chosen = self._plan_step(self._resting(), now)
        if self._plan.resting and not self._plan.pieces:  # no other tenant's prompt was admitted
            chosen = self._plan_step(set(), now)
        # Admitting a prompt may have preempted a sequence that was chosen before.
        going_on = [one for one in chosen if one not in self._plan.victims]
        for one in going_on:
            self.waiting.charge(one.tenant, GENERATED_WEIGHT)
        decode = [Work.of(one, one.num_computed, one.num_computed + 1) for one in going_on]
        pieces = self._plan.pieces
        return Batch(tuple(decode), tuple(pieces)) if decode or pieces else None

    def advance(self, batch: Batch, sampled: Sequence[Sampled]) -> None:
        """Enter a step's results: `sampled` has one token per work that samples, in order."""
        tokens = iter(sampled)
        for work in batch.works:
            work.sequence.num_computed = work.stop
            self._pages.keep(work.sequence)
            if work.samples:
                self._enter(work.sequence, next(tokens).token)

    def _enter(self, sequence: TokenSequence, token: int) -> None:
        sequence.enter(token)
        if sequence.finish_reason:
            self._end(sequence)
        elif sequence.has_just_grown_long:
            self._put_back(sequence)

    def _plan_step(self, resting: set[str], now: float) -> list[TokenSequence]:
        """Plan a step without the resting tenants; return the sequences with a single token."""
        self._plan = _Plan(resting, set(resting))
        chosen = self._choose()
        self._prefill(self._max_rows - len(chosen), now)
        return chosen

    def _resting(self) -> set[str]:
        """Return the flooding tenants if another tenant's prompt is to be computed.

        They are left out of this step, and take part in the next: the step is short, and the other
        tenant's first token does not wait for the flood's rows.
        """
        flooding = self.waiting.flooding()
        if not flooding or self._plan.resting:
            return set()
        sequences = [*(one for one in self.running if one.is_prefilling), *self.waiting]
        found = any(one.tenant not in flooding and one.is_ready for one in sequences)
        return flooding if found else set()

    def _choose(self) -> list[TokenSequence]:
        """Return the running sequences that compute one token, with room for it."""
        beyond = [
            one
            for one in self.running
            if not one.is_prefilling and one.tenant not in self._plan.resting
        ]
        chosen = beyond[: self._most_singles()]
        if len(chosen) < len(beyond):  # the others come first in the next step
            self.running = [one for one in self.running if one not in chosen] + chosen
        for sequence in chosen:
            self._grow(sequence)
        return [one for one in chosen if one.pages]

    def _most_singles(self) -> int:
        waiting = any(one.is_prefilling for one in self.running) or any(
            one.is_ready for one in self.waiting
        )
        left = max(1, int(_PROMPT_SHARE * self._max_rows)) if waiting else 0
        return max(1, min(self.max_running, self._max_rows - left))

    def _prefill(self, budget: int, now: float) -> None:
        """Plan pieces of prompts, `budget` tokens at most."""
        flooding = self.waiting.flooding() if self.waiting.is_shared(now) else set()
        flood_budget = self._fair_rows
        while budget > 0 and (sequence := self._next_prompt(now)):
            is_flood = sequence.tenant in flooding
            start = sequence.num_computed
            rows = min(budget, flood_budget if is_flood else budget, sequence.num_together - start)
            self._plan.pieces.append(Work.of(sequence, start, start + rows))
            self.waiting.charge(sequence.tenant, PROMPT_WEIGHT * rows)
            budget -= rows
            flood_budget -= rows if is_flood else 0
            if flood_budget <= 0:
                self._plan.closed |= flooding

    def _next_prompt(self, now: float) -> TokenSequence | None:
        """Return the sequence whose prompt is computed next: the least served tenant's first.

        Of one tenant's, prompts that are already begun come first.
        """
        for tenant in self.waiting.by_service():
            if tenant in self._plan.closed:
                continue
            for one in self.running:
                if one.tenant == tenant and one.is_prefilling and not self._plan.has(one):
                    return one
            if (admitted := self._admit(tenant, now)) is not None:
                return admitted
        return None

    def _admit(self, tenant: str, now: float) -> TokenSequence | None:
        """Admit a tenant's first ready sequence; overdue sequences of any tenant come first."""
        if self._plan.is_full:
            return None
        for sequence in self.waiting.overdue(now) or self.waiting.of(tenant):
            if not self._may_start(sequence):
                continue
            if not self._has_room(sequence.tenant):
                return None
            self._plan.is_full = not self._start(sequence, now)
            return None if self._plan.is_full else sequence
        return None

    def _may_start(self, sequence: TokenSequence) -> bool:
        return (
            sequence.is_ready
            and sequence not in self._plan.victims
            and not self._pages.is_waiting_for_prefix(sequence, self.running)
        )

    def _has_room(self, tenant: str) -> bool:
        """Return whether one more sequence of a tenant may run."""
        share = self.waiting.share(self.max_running)
        return len(self.running) < self.max_running or self.waiting.num_running(tenant) < share

    def _start(self, sequence: TokenSequence, now: float) -> bool:
        """Give a sequence its pages and start it; False if there are not enough."""
        while not self._pages.take(sequence, spare=len(self.running)):
            if not self._make_room(sequence):
                return False
        if sequence.admitted is None:
            sequence.admitted, sequence.num_cached = now, sequence.num_computed
        self.waiting.start(sequence)
        self.running.append(sequence)
        return True

    def _make_room(self, sequence: TokenSequence) -> bool:
        """Take back pages that are not needed yet; else preempt a tenant above its share."""
        if self._trim():
            return True
        share = self.waiting.share(self._pages.num_pages)
        held = self._held()
        if held.get(sequence.tenant, 0) + self._pages.needed(sequence) > share:
            return False
        over = {tenant for tenant, pages in held.items() if pages > share}
        return self._preempt_newest(over - {sequence.tenant}) is not None

    def _trim(self) -> bool:
        """Take back all pages that are not needed yet; return whether there were any."""
        before = sum(len(one.pages) for one in self.running)
        for one in self.running:
            self._pages.trim(one)
        return sum(len(one.pages) for one in self.running) < before

    def _grow(self, sequence: TokenSequence) -> None:
        """Give a sequence the page of its next token; the newest one is preempted for it.

        That may be the sequence itself.
        """
        while sequence.pages and not self._pages.grow(sequence):
            if not self._trim():
                share = self.waiting.share(self._pages.num_pages)
                over = {tenant for tenant, pages in self._held().items() if pages > share}
                if self._preempt_newest(over) is None:
                    self._preempt_newest(self.waiting.tenants)

    def _held(self) -> dict[str, int]:
        """Return how many pages each tenant's running sequences hold."""
        held: dict[str, int] = {}
        for one in self.running:
            held[one.tenant] = held.get(one.tenant, 0) + len(one.pages)
        return held

    def _preempt_newest(self, tenants: set[str]) -> TokenSequence | None:
        """Preempt and return the newest running sequence of these tenants; None if none may be."""
        able = [
            one
            for one in self.running
            if one.tenant in tenants and not one.is_solid and not self._plan.has(one)
        ]
        if not able:
            return None
        victim = max(able, key=lambda one: one.number)
        self._put_back(victim)
        victim.num_preempted += 1
        self.num_preemptions += 1
        self._plan.victims.add(victim)
        return victim

    def _put_back(self, sequence: TokenSequence) -> None:
        """Take a running sequence's pages and queue it again; it computes its tokens again."""
        self.running.remove(sequence)
        self._pages.release(sequence)
        sequence.num_computed = 0
        self.waiting.put_back(sequence)

    def _end(self, sequence: TokenSequence) -> None:
        self.running.remove(sequence)
        self.waiting.end(sequence)
        self._pages.release(sequence)

    def check_integrity(self) -> None:
        """Assert that every page is free, kept, or held by exactly one running sequence."""
        self._pages.check_integrity(self.running)
        assert not any(sequence.pages for sequence in self.waiting)
