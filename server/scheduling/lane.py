"""One class of sequences, and its part of each step: continuous batching with chunked prefill.

Pure: no torch, no clock, no thread. Running sequences come first, a token each; the rest of the
part's rows goes to prompts, tenant by tenant, the least served first. A sequence is admitted when
its adapter is ready and there are pages for its prompt. When the cache is full, the newest running
sequence is preempted, that of the lane below first, and runs again later: its prompt is computed
again, or found as a kept prefix, and its tokens one by one as before, with the same bits.
"""

from dataclasses import dataclass, field

from server.scheduling.fair_queue import GENERATED_WEIGHT, PROMPT_WEIGHT, FairQueue
from server.scheduling.kv_pages import KvPages
from server.scheduling.sequence import TokenSequence
from server.scheduling.step import Batch, Work

#: Share of a step's rows that running sequences leave to waiting prompts.
_PROMPT_SHARE = 0.25


@dataclass(frozen=True)
class Room:
    """What a lane may take of the next step.

    Args:
        rows: tokens.
        slots: sequences that may run.
        spare: pages that other lanes' running sequences may need for their next tokens.
        may_admit: whether waiting sequences may start.
        may_evict: whether pages that live sequences have left may be evicted.
    """

    rows: int
    slots: int
    spare: int = 0
    may_admit: bool = True
    may_evict: bool = True


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


class Lane:
    """The waiting and the running sequences of one class: the live ones, or the background's.

    A tenant with less than its share of the room's slots is admitted beyond them, and all take
    turns.

    Args:
        pages: the cache's, shared by the lanes.
        max_age_s: a sequence that has waited longer is admitted before all others.
        fair_rows: prompt tokens in one step of tenants that flood a shared lane: short steps keep
            the other tenants' waiting time short. None: nothing waits for one sequence.
        below: the lane that gives way to this one.
    """

    def __init__(
        self,
        pages: KvPages,
        max_age_s: float,
        fair_rows: int | None = None,
        below: "Lane | None" = None,
    ) -> None:
        self._pages = pages
        self._fair_rows = fair_rows
        self._below = below
        self._room = Room(0, 0)
        self.waiting = FairQueue(max_age_s)
        self.running: list[TokenSequence] = []
        self.num_preemptions = 0
        #: Set for the step in which it gave pages to the lane above.
        self.has_given_way = False
        self._plan = _Plan()

    def remove(self, sequence: TokenSequence) -> None:
        """Drop a waiting or running sequence; nothing happens if it has ended."""
        if sequence in self.running:
            self._end(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    @property
    def sequences(self) -> list[TokenSequence]:
        """Return all, the running ones first."""
        return [*self.running, *self.waiting]

    @property
    def counts(self) -> tuple[int, int]:
        """Return how many run, and how many wait."""
        return len(self.running), len(self.waiting)

    @property
    def is_held_up(self) -> bool:
        """Return whether a sequence waits for nothing but room."""
        return any(one.is_ready for one in self.waiting)

    def next(self, room: Room, now: float) -> Batch:
        """Return this lane's part of the next step; it may be empty."""
        self._room = room
        chosen = self._plan_step(self._resting(), now)
        if self._plan.resting and not self._plan.pieces:  # no other tenant's prompt was admitted
            chosen = self._plan_step(set(), now)
        # Admitting a prompt may have preempted a sequence that was chosen before.
        going_on = [one for one in chosen if one not in self._plan.victims]
        for one in going_on:
            self.waiting.charge(one.tenant, GENERATED_WEIGHT)
        decode = [Work.of(one, one.num_computed, one.num_computed + 1) for one in going_on]
        return Batch(tuple(decode), tuple(self._plan.pieces))

    def enter(self, work: Work, token: int | None) -> None:
        """Enter what a step computed of a sequence, and the token that it sampled, if it did."""
        work.sequence.num_computed = work.stop
        self._pages.keep(work.sequence)
        if token is not None:
            self._enter(work.sequence, token)

    def give_way(self) -> bool:
        """Give back pages that the lane above needs; return whether there were any.

        First those that nothing needs yet, then all of the newest sequence, which waits again.
        """
        if not self.running:
            return False
        self.has_given_way = True
        if not self._trim():
            self._preempt(max(self.running, key=lambda one: one.number))
        return True

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
        self._prefill(self._room.rows - len(chosen), now)
        return chosen

    def _resting(self) -> set[str]:
        """Return the flooding tenants if another tenant's prompt is to be computed.

        They are left out of this step, and take part in the next: the step is short, and the other
        tenant's first token does not wait for the flood's rows.
        """
        flooding = self.waiting.flooding()
        if self._fair_rows is None or not flooding or self._plan.resting:
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
        left = max(1, int(_PROMPT_SHARE * self._room.rows)) if waiting else 0
        return max(1, min(self._room.slots, self._room.rows - left))

    def _prefill(self, budget: int, now: float) -> None:
        """Plan pieces of prompts, `budget` tokens at most."""
        is_fair = self._fair_rows is not None and self.waiting.is_shared(now)
        flooding = self.waiting.flooding() if is_fair else set()
        flood_budget = self._fair_rows or budget
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
        if self._plan.is_full or not self._room.may_admit:
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
        slots = self._room.slots
        share = self.waiting.share(slots)
        return len(self.running) < slots or self.waiting.num_running(tenant) < share

    def _start(self, sequence: TokenSequence, now: float) -> bool:
        """Give a sequence its pages and start it; False if there are not enough."""
        spare = len(self.running) + self._room.spare
        while self._may_take_from_below and not self._pages.has_whole(sequence, spare):
            self._take_from_below()
        while not self._take(sequence, spare):
            if not self._make_room(sequence):
                return False
        if sequence.admitted is None:
            sequence.admitted, sequence.num_cached = now, sequence.num_computed
        self.waiting.start(sequence)
        self.running.append(sequence)
        return True

    @property
    def _may_take_from_below(self) -> bool:
        return self._below is not None and bool(self._below.running)

    def _take_from_below(self) -> bool:
        return self._below is not None and self._below.give_way()

    def _take(self, sequence: TokenSequence, spare: int) -> bool:
        if self._pages.take(sequence, spare, self._room.may_evict):
            return True
        return self._is_alone(sequence) and self._pages.take(sequence, spare)

    def _has_grown(self, sequence: TokenSequence) -> bool:
        if self._pages.grow(sequence, self._room.may_evict):
            return True
        return self._is_alone(sequence) and self._pages.grow(sequence)

    def _is_alone(self, sequence: TokenSequence) -> bool:
        """Return whether nothing else runs at all: then any kept page may go for it."""
        return not self._room.spare and all(one is sequence for one in self.running)

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
        while sequence.pages and not self._has_grown(sequence):
            if not self._take_from_below() and not self._trim():
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
        self._preempt(victim)
        self._plan.victims.add(victim)
        return victim

    def _preempt(self, victim: TokenSequence) -> None:
        self._put_back(victim)
        victim.num_preempted += 1
        self.num_preemptions += 1

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
