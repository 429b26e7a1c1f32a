"""The background runs in what live sequences leave, costs them nothing they want, and goes on."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduling_parts import PAGE_SIZE, scheduler, sequence, step
from server.scheduling.page_pool import PagePool
from server.scheduling.scheduler import Scheduler
from server.scheduling.sequence import Sampled, TokenSequence
from server.scheduling.spare_rows import SpareRows
from server.scheduling.step import Work
from server.scheduling.step_costs import StepCosts


def background(
    prompt: int, max_tokens: int = 3, tenant: str = "batch", first: int = 500
) -> TokenSequence:
    return sequence(prompt, max_tokens, None, tenant, first, is_background=True)


def cost(rows: float) -> float:
    """Return the seconds of a step on a machine where a row costs a tenth of a step."""
    return 10.0 + rows


def known() -> StepCosts:
    """Return the costs as they are learned from a few steps."""
    costs = StepCosts()
    for rows in range(1, 20):
        costs.observe(rows, cost(rows))
    return costs


def run_out(s: Scheduler, now: float = 0.0) -> None:
    while step(s, now=now):
        pass


def test_without_live_sequences_the_background_has_the_whole_step() -> None:
    s = scheduler(max_rows=20, max_running=4)
    for i in range(3):
        s.add(background(4, first=100 * i))
    batch = step(s)
    assert batch is not None
    assert [work.stop for work in batch.prefill] == [4, 4, 4]


def test_while_costs_are_unknown_it_waits_for_a_step_without_live_ones() -> None:
    s = scheduler(max_rows=20)
    s.add(low := background(4))
    step(s)
    s.add(live := sequence(4, 5))
    while live.finish_reason is None:
        batch = step(s)
        assert batch is not None
        assert {work.sequence for work in batch.works} == {live}
    assert low.num_generated == 1
    run_out(s)
    assert low.num_generated == 3


def test_a_live_sequence_takes_the_pages_that_it_wants_from_the_newest_of_the_background() -> None:
    s = scheduler(max_rows=20, max_running=4)
    old, new = background(12, 4, first=100), background(12, 4, first=200)
    for low in (old, new):
        s.add(low)
    step(s)
    s.add(live := sequence(17, 3, first=300))
    step(s)
    assert live.pages
    assert (old.num_preempted, new.num_preempted) == (0, 1)
    run_out(s)
    assert [one.num_generated for one in (old, new, live)] == [4, 4, 3]


def test_the_background_takes_no_page_from_a_live_sequence() -> None:
    s = Scheduler(PagePool(10, PAGE_SIZE), 30, 4, spare=SpareRows(30, 9.0, known()))
    s.add(live := sequence(4, 30))
    step(s)
    assert len(live.pages) == 9
    s.add(background(8, 2))
    while live.finish_reason is None:
        assert len(live.pages) == 9
        step(s)
    assert live.num_preempted == 0


def test_none_starts_while_a_live_one_waits_for_room() -> None:
    s = Scheduler(PagePool(10, PAGE_SIZE), 30, 4, spare=SpareRows(30, 9.0, known()))
    s.add(first := sequence(20, 8, first=100))
    step(s)
    s.add(second := sequence(20, 8, first=200))
    s.add(low := background(4))
    while not second.pages:
        step(s)
        assert not low.pages
    assert first.finish_reason
    run_out(s)
    assert low.finish_reason


def test_live_sequences_have_all_slots() -> None:
    s = scheduler(max_rows=30, max_running=2)
    lows = [background(2, 9, first=100 * i) for i in range(2)]
    for low in lows:
        s.add(low)
    step(s)
    lives = [sequence(2, 4, first=700 + 100 * i) for i in range(2)]
    for live in lives:
        s.add(live)
    step(s)
    assert s.running == lives
    run_out(s)
    assert all(low.num_generated == 9 for low in lows)


def test_pages_that_live_sequences_left_stay_for_the_next_that_begins_the_same() -> None:
    s = scheduler(max_rows=40, max_running=4)
    s.add(sequence(17, 1, first=100))
    run_out(s)
    for i in range(6):
        s.add(background(15, 1, first=300 + 100 * i))
    run_out(s)
    s.add(again := sequence(17, 1, first=100))
    run_out(s)
    assert again.num_cached == 16


def test_what_the_background_left_goes_before_what_live_sequences_left() -> None:
    s = scheduler(max_rows=40, max_running=4)
    s.add(sequence(17, 1, first=100))
    run_out(s)
    s.add(background(5, 1, first=300))
    run_out(s)
    s.add(sequence(3, 21, first=600))  # as many pages as are free, and one more
    run_out(s)
    s.add(again := sequence(17, 1, first=100))
    run_out(s)
    assert again.num_cached == 16


def test_a_background_sequence_that_needs_the_whole_cache_runs_when_nothing_else_does() -> None:
    s = scheduler(max_rows=40, max_running=4)
    s.add(sequence(17, 1, first=100))
    run_out(s)
    s.add(low := background(30, 10, first=300))
    run_out(s)
    assert low.num_generated == 10


def test_tenants_of_batches_take_turns() -> None:
    s = Scheduler(PagePool(200, PAGE_SIZE), 8, 2)
    for i in range(30):
        s.add(background(4, 2, "greedy", first=100 * i))
    for i in range(5):
        s.add(background(4, 2, "small", first=5000 + 100 * i))
    ended: Counter[str] = Counter()
    while ended["small"] < 5:
        before = {one for one in s.sequences if not one.finish_reason}
        step(s)
        ended.update(one.tenant for one in before if one.finish_reason)
    assert ended["greedy"] <= 7


def test_steps_are_short_for_a_while_after_live_ones() -> None:
    s = Scheduler(PagePool(200, PAGE_SIZE), 100, 64, spare=SpareRows(100, 0.0, known()))
    s.add(background(200, 1))
    first, _ = s.next(0.0), s.add(sequence(1, 1))
    assert first is not None
    assert first.num_rows == 100
    s.advance(first, [])
    step(s, now=1.0)
    after = step(s, now=1.5)
    assert after is not None
    assert after.num_rows == 12  # twice as long as a step of one row
    later = step(s, now=10.0)
    assert later is not None
    assert later.num_rows > 12


def test_beside_live_sequences_it_costs_the_share_that_was_set() -> None:
    s = Scheduler(PagePool(2000, PAGE_SIZE), 100, 64, spare=SpareRows(100, 0.05, known()))
    for i in range(4):
        s.add(sequence(1, 1000, first=i))
    for i in range(40):
        s.add(background(1, 50, first=100 + i))
    step(s)
    alone = beside = 0.0
    rows = 0
    for _ in range(600):
        batch = step(s)
        assert batch is not None
        own = sum(not work.sequence.is_background for work in batch.works)
        assert own == 4
        alone, beside = alone + cost(own), beside + cost(batch.num_rows)
        rows += batch.num_rows - own
    assert beside <= 1.05 * alone + 1.0
    assert rows >= 0.9 * 0.05 * alone  # and the share is used: batches go on


Arrival = tuple[int, int, int, int]  # step, prompt, tokens, tenant
ARRIVALS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 24), st.integers(1, 12), st.integers(0, 1)),
    max_size=12,
)


class Watched:
    """A scheduler that is fed by a plan of arrivals; what live sequences get of each step."""

    def __init__(self, live: list[Arrival], low: list[Arrival], slowdown: float) -> None:
        spare = SpareRows(7, slowdown, known())
        self.scheduler = Scheduler(PagePool(12, PAGE_SIZE), 7, 4, 30.0, False, spare)
        self.arrivals = [(at, self._made(i, one, False)) for i, (at, *one) in enumerate(live)]
        self.arrivals += [(at, self._made(i, one, True)) for i, (at, *one) in enumerate(low)]
        self.seen: list[list[tuple[int, int, int]]] = []

    @staticmethod
    def _made(i: int, one: list[int], is_low: bool) -> TokenSequence:
        prompt, tokens, tenant = one
        first = (5000 if is_low else 100) + 100 * i
        return sequence(prompt, tokens, None, str(tenant), first, is_background=is_low)

    def run(self) -> "Watched":
        at = 0
        while at <= 30 or self.scheduler.sequences:
            for when, one in self.arrivals:
                if when == at:
                    self.scheduler.add(one)
            batch = self.scheduler.next(float(at))
            works = () if batch is None else batch.works
            own = [self._told(work) for work in works if not work.sequence.is_background]
            if own:
                self.seen.append(own)
            if batch is not None:
                assert batch.num_rows <= 7
                self.scheduler.advance(batch, [Sampled(1) for w in batch.works if w.samples])
            self.scheduler.check_integrity()
            at += 1
            assert at < 3000, "it does not end"
        return self

    @staticmethod
    def _told(work: Work) -> tuple[int, int, int]:
        return work.sequence.prompt[0], work.start, work.stop


@settings(max_examples=150, deadline=None)
@given(live=ARRIVALS, low=ARRIVALS, slowdown=st.sampled_from([0.0, 0.05, 3.0]))
def test_live_sequences_get_the_steps_that_they_get_alone_and_everything_ends(
    live: list[Arrival], low: list[Arrival], slowdown: float
) -> None:
    """Beside any background, and every sequence of it reaches its end."""
    alone, beside = Watched(live, [], slowdown).run(), Watched(live, low, slowdown).run()

    assert beside.seen == alone.seen
    assert all(one.finish_reason for _, one in beside.arrivals)
