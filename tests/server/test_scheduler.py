"""Continuous batching: every token once, every sequence to its end, nobody overtaken."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.kv_pool import PagePool
from server.scheduler import Batch, Scheduler, Work
from server.sequence import Sampled, Sampling, Sequence

STOP = 9
PAGE_SIZE = 4
NUM_PAGES = 10
MAX_ROWS = 7
MAX_RUNNING = 4


@dataclass
class Adapter:
    """A lease that is ready when the test says so."""

    is_ready: bool = False


def sequence(prompt: int, max_tokens: int = 3, lease: Adapter | None = None) -> Sequence:
    sampling = Sampling(max_tokens=max_tokens, stop_ids=frozenset({STOP}))
    return Sequence(tuple(range(100, 100 + prompt)), sampling, lease)


def scheduler(max_rows: int = MAX_ROWS, max_running: int = MAX_RUNNING) -> Scheduler:
    return Scheduler(PagePool(NUM_PAGES, PAGE_SIZE), max_rows, max_running)


def step(scheduler: Scheduler, token: int = 1, now: float = 0.0) -> Batch | None:
    batch = scheduler.next(now)
    if batch is not None:
        scheduler.advance(batch, [Sampled(token) for work in batch.works if work.samples])
        scheduler.check_integrity()
    return batch


def spans(works: tuple[Work, ...]) -> list[tuple[int, int, bool]]:
    return [(work.start, work.stop, work.samples) for work in works]


def test_a_long_prompt_comes_in_pieces_and_only_the_last_samples() -> None:
    s = scheduler(max_rows=4)
    s.add(sequence(10))
    pieces = [spans(batch.prefill) for batch in iter(lambda: step(s), None)][:3]
    assert pieces == [[(0, 4, False)], [(4, 8, False)], [(8, 10, True)]]


def test_running_sequences_come_before_prompts() -> None:
    s = scheduler()
    s.add(sequence(3))
    step(s)
    s.add(sequence(5))
    batch = step(s)
    assert batch is not None
    assert spans(batch.decode) == [(3, 4, True)]
    assert spans(batch.prefill) == [(0, 5, True)]
    assert batch.num_rows == 6


def test_the_stop_token_and_the_last_token_end_a_sequence() -> None:
    s = scheduler()
    stopped, exhausted = sequence(2), sequence(2, max_tokens=1)
    s.add(stopped)
    s.add(exhausted)
    step(s, token=1)
    assert exhausted.finish_reason == "length"
    step(s, token=STOP)
    assert stopped.finish_reason == "stop"
    assert stopped.tokens[-2:] == [1, STOP]
    assert s.next(0.0) is None
    assert s._pool.num_free == NUM_PAGES


def test_the_stop_token_wins_over_the_length() -> None:
    s = scheduler()
    only = sequence(2, max_tokens=1)
    s.add(only)
    step(s, token=STOP)
    assert only.finish_reason == "stop"


def test_a_missing_adapter_holds_up_nobody_else() -> None:
    s, adapter = scheduler(), Adapter()
    waiting, other = sequence(3, lease=adapter), sequence(3)
    s.add(waiting)
    s.add(other)
    step(s)
    assert s.running == [other]
    adapter.is_ready = True
    step(s)
    assert s.running == [other, waiting]


def test_the_first_that_does_not_fit_is_not_overtaken() -> None:
    s = scheduler()
    first, large, small = sequence(8, 8), sequence(25, 8), sequence(1, 1)
    for one in (first, large, small):
        s.add(one)
    step(s)
    step(s)
    assert s.running == [first]
    assert list(s.waiting) == [large, small]


def test_admission_takes_pages_for_the_whole_length_and_the_clock() -> None:
    s = scheduler()
    one = sequence(5, max_tokens=7)
    s.add(one)
    s.next(12.5)
    assert len(one.pages) == 3
    assert one.admitted == 12.5


def test_fits_is_about_the_whole_pool() -> None:
    s = scheduler()
    assert s.fits(NUM_PAGES * PAGE_SIZE)
    assert not s.fits(NUM_PAGES * PAGE_SIZE + 1)


def test_removing_a_sequence_that_has_ended_does_nothing() -> None:
    s = scheduler()
    one = sequence(2, max_tokens=1)
    s.add(one)
    step(s)
    s.remove(one)
    s.check_integrity()
    assert s._pool.num_free == NUM_PAGES


def test_no_more_sequences_run_than_rows_are_there() -> None:
    s = scheduler(max_rows=2, max_running=5)
    for _ in range(5):
        s.add(sequence(1, max_tokens=4))
    batches = list(iter(lambda: step(s), None))
    assert max(batch.num_rows for batch in batches) == 2
    assert sum(work.samples for batch in batches for work in batch.works) == 5 * 4


class SchedulerMachine(RuleBasedStateMachine):
    """Random arrivals, adapters, cancels and steps against a record of what was computed."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = scheduler()
        self.adapters = [Adapter() for _ in range(3)]
        self.accepted: list[Sequence] = []
        self.cancelled: set[Sequence] = set()
        self.computed: dict[Sequence, list[int]] = {}

    @rule(
        prompt=st.integers(1, 24),
        max_tokens=st.integers(1, 8),
        adapter=st.sampled_from([None, 0, 1, 2]),
    )
    def add(self, prompt: int, max_tokens: int, adapter: int | None) -> None:
        one = sequence(prompt, max_tokens, None if adapter is None else self.adapters[adapter])
        self.scheduler.add(one)
        self.accepted.append(one)
        self.computed[one] = []

    @rule(adapter=st.integers(0, 2), ready=st.booleans())
    def adapter_changes(self, adapter: int, ready: bool) -> None:
        # Memory is given up only where no running sequence uses it.
        in_use = any(s.lease is self.adapters[adapter] for s in self.scheduler.running)
        self.adapters[adapter].is_ready = ready or in_use

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

    def _step(self, token: "object") -> bool:
        waiting = list(self.scheduler.waiting)
        batch = self.scheduler.next(0.0)
        self._check_order(waiting)
        if batch is None:
            assert not self.scheduler.running
            return False
        assert 1 <= batch.num_rows <= MAX_ROWS
        assert len(set(batch.works)) == len({work.sequence for work in batch.works})
        for work in batch.works:
            assert work.start < work.stop
            self.computed[work.sequence] += range(work.start, work.stop)
            assert work.samples == (work.stop == len(work.sequence.tokens))
        assert all(work.stop - work.start == 1 for work in batch.decode)
        assert callable(token)
        samples = [work for work in batch.works if work.samples]
        self.scheduler.advance(batch, [Sampled(token()) for _ in samples])
        return True

    def _check_order(self, before: list[Sequence]) -> None:
        """Nobody who was ready was overtaken by a later one."""
        left = set(self.scheduler.waiting)
        ready = [one for one in before if one.is_ready]
        admitted = [one not in left for one in ready]
        assert admitted == sorted(admitted, reverse=True)
        assert all(one in left for one in before if not one.is_ready)

    @invariant()
    def books_balance(self) -> None:
        self.scheduler.check_integrity()
        assert len(self.scheduler.running) <= MAX_RUNNING
        for one in self.scheduler.running:
            assert len(one.pages) * PAGE_SIZE >= len(one.tokens)

    @invariant()
    def every_token_is_computed_once_and_in_order(self) -> None:
        for one, positions in self.computed.items():
            assert positions == list(range(one.num_computed))
            if one.finish_reason:
                assert positions == list(range(len(one.tokens) - 1))
                assert one.num_generated <= one.sampling.max_tokens

    def teardown(self) -> None:
        """Once every adapter is ready, everybody reaches an end."""
        for adapter in self.adapters:
            adapter.is_ready = True
        steps = 0
        while self._step(lambda: 1):
            self.scheduler.check_integrity()
            steps += 1
            assert steps < 32 * (len(self.accepted) + 1), "the scheduler does not come to an end"
        for one in self.accepted:
            assert (one.finish_reason is not None) != (one in self.cancelled)
        assert self.scheduler._pool.num_free == NUM_PAGES


SchedulerMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None
)
TestSchedulerMachine = SchedulerMachine.TestCase
