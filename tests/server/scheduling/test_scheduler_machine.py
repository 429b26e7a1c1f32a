"""Continuous batching under random arrivals, cancels and steps: what every cell must hold."""

from collections.abc import Callable, Hashable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scheduling_parts import (
    MAX_ROWS,
    MAX_RUNNING,
    NUM_PAGES,
    PAGE_SIZE,
    STOP,
    Adapter,
    scheduler,
    sequence,
)
from server.scheduling.sequence import Sampled, TokenSequence
from server.scheduling.spare_rows import SpareRows
from server.scheduling.step import Work
from server.scheduling.step_costs import StepCosts


class Cells:
    """What each cell holds: the keys of which adapter and tokens, and how they were computed."""

    def __init__(self) -> None:
        self._cells: dict[int, Hashable] = {}

    def compute(self, work: Work) -> None:
        """Write what a work computes, over cells that hold all that comes before it."""
        one = work.sequence
        for i in range(work.start):
            assert self._cells[self._cell(one, i)] == self._content(one, i), "a wrong cell is read"
        is_prompt = work.stop <= len(one.prompt)
        assert is_prompt or work.stop - work.start == 1, "generated tokens come one by one"
        for i in range(work.start, work.stop):
            self._cells[self._cell(one, i)] = self._content(one, i)

    @staticmethod
    def _cell(one: TokenSequence, i: int) -> int:
        return one.pages[i // PAGE_SIZE] * PAGE_SIZE + i % PAGE_SIZE

    @staticmethod
    def _content(one: TokenSequence, i: int) -> Hashable:
        return one.namespace, tuple(one.tokens[: i + 1]), i < len(one.prompt)


class SchedulerMachine(RuleBasedStateMachine):
    """Random arrivals, adapters, tenants, cancels and steps against what the cells must hold."""

    def __init__(self) -> None:
        super().__init__()
        costs = StepCosts()
        for rows in range(1, MAX_ROWS):
            costs.observe(rows, 4.0 + rows)
        spare = SpareRows(MAX_ROWS, 0.3, costs)
        self.scheduler = scheduler(spare=spare)
        self.adapters = [Adapter(key=str(i)) for i in range(3)]
        self.accepted: list[TokenSequence] = []
        self.cancelled: set[TokenSequence] = set()
        self.cells = Cells()

    @rule(
        prompt=st.integers(1, 24),
        first=st.sampled_from([100, 200]),
        max_tokens=st.integers(1, 14),
        adapter=st.sampled_from([None, 0, 1, 2]),
        tenant=st.sampled_from("ab"),
        is_background=st.booleans(),
    )
    def add(
        self,
        prompt: int,
        first: int,
        max_tokens: int,
        adapter: int | None,
        tenant: str,
        is_background: bool,
    ) -> None:
        lease = None if adapter is None else self.adapters[adapter]
        one = sequence(prompt, max_tokens, lease, tenant, first, is_background=is_background)
        self.scheduler.add(one)
        self.accepted.append(one)

    @rule(adapter=st.integers(0, 2), ready=st.booleans())
    def adapter_changes(self, adapter: int, ready: bool) -> None:
        # Memory is given up only where no running sequence uses it.
        in_use = any(s.lease is self.adapters[adapter] for s in self._running)
        self.adapters[adapter].is_ready = ready or in_use

    @property
    def _running(self) -> list[TokenSequence]:
        return [*self.scheduler.running, *self.scheduler.background.running]

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.accepted))
        self.scheduler.remove(one)
        if one.finish_reason is None:
            self.cancelled.add(one)

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        self._step(lambda: data.draw(st.sampled_from([1, 2, STOP])))

    def _step(self, token: Callable[[], int]) -> bool:
        before = list(self.scheduler.waiting)
        batch = self.scheduler.next(0.0)
        self._check_order(before)
        if batch is None:
            assert not self._running
            assert not any(one.is_ready for one in self.scheduler.sequences)
            return False
        assert 1 <= batch.num_rows <= MAX_ROWS
        assert len(set(batch.works)) == len({work.sequence for work in batch.works})
        for work in batch.works:
            assert work.sequence in self._running
            assert work.start == work.sequence.num_computed < work.stop
            assert work.samples == (work.stop == len(work.sequence.tokens))
            self.cells.compute(work)
        assert all(work.stop - work.start == 1 for work in batch.decode)
        samples = [work for work in batch.works if work.samples]
        self.scheduler.advance(batch, [Sampled(token()) for _ in samples])
        return True

    def _check_order(self, before: list[TokenSequence]) -> None:
        """Nobody was overtaken within a tenant, but for those who wait for a common prefix."""
        waiting, running = set(self.scheduler.waiting), self.scheduler.running
        for one in before:
            if one not in waiting or not one.is_ready or one.num_preempted:
                continue
            page = one.prompt[:PAGE_SIZE]
            for other in running:
                is_later = other in before and other.number > one.number
                if is_later and other.tenant == one.tenant and not other.num_preempted:
                    namespaces = {r.namespace for r in running if r.prompt[:PAGE_SIZE] == page}
                    assert one.namespace in namespaces

    @invariant()
    def books_balance(self) -> None:
        self.scheduler.check_integrity()
        assert len(self.scheduler.running) <= 2 * MAX_RUNNING
        for one in self._running:
            assert len(one.pages) * PAGE_SIZE >= one.num_computed

    @invariant()
    def no_sequence_is_preempted_for_ever(self) -> None:
        assert all(one.num_preempted <= 2 for one in self.accepted if not one.is_background)

    def teardown(self) -> None:
        """Once every adapter is ready, every sequence reaches an end."""
        for adapter in self.adapters:
            adapter.is_ready = True
        steps = 0
        while self._step(lambda: 1):
            self.scheduler.check_integrity()
            steps += 1
            assert steps < 120 * (len(self.accepted) + 1), "the scheduler does not come to an end"
        for one in self.accepted:
            assert (one.finish_reason is not None) != (one in self.cancelled)
            if one.finish_reason:
                assert one.num_generated <= one.sampling.max_tokens
        assert self.scheduler._pages.num_available == NUM_PAGES


SchedulerMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
TestSchedulerMachine = SchedulerMachine.TestCase
