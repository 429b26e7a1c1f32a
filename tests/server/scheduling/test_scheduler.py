"""Continuous batching: every token in its place, every sequence to its end, nobody starved."""

from collections import Counter

from scheduling_parts import (
    MAX_ROWS,
    MAX_RUNNING,
    NUM_PAGES,
    PAGE_SIZE,
    STOP,
    Adapter,
    scheduler,
    sequence,
    step,
)
from server.scheduling.page_pool import PagePool
from server.scheduling.scheduler import Scheduler
from server.scheduling.sequence import Sampled, TokenSequence
from server.scheduling.step import Work


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
    assert s._pages.num_available == NUM_PAGES


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
    first, large, small = sequence(8, 8), sequence(25, 8, first=200), sequence(1, 1, first=300)
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


def test_removing_a_sequence_that_has_ended_does_nothing() -> None:
    s = scheduler()
    one = sequence(2, max_tokens=1)
    s.add(one)
    step(s)
    s.remove(one)
    s.check_integrity()
    assert s._pages.num_available == NUM_PAGES


def test_no_more_sequences_run_than_rows_are_there() -> None:
    s = scheduler(max_rows=2, max_running=5)
    for _ in range(5):
        s.add(sequence(1, max_tokens=4))
    batches = list(iter(lambda: step(s), None))
    assert max(batch.num_rows for batch in batches) == 2
    assert sum(work.samples for batch in batches for work in batch.works) == 5 * 4


def test_a_prompt_that_was_computed_is_found_by_the_same_tenant_and_adapter_only() -> None:
    s, adapter, other = scheduler(), Adapter(True, "a"), Adapter(True, "b")
    step_all(s, sequence(9, 1, adapter, "one"))
    again = sequence(9, 1, adapter, "one")
    for one in (again, sequence(9, 1, other, "one"), sequence(9, 1, adapter, "two")):
        s.add(one)
        batch = s.next(0.0)
        assert batch is not None
        assert batch.prefill[0].start == (8 if one is again else 0)
        assert one.num_cached == (8 if one is again else 0)
        s.advance(batch, [Sampled(1)] if batch.prefill[0].samples else [])
        while step(s):
            pass


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    s = scheduler(max_rows=20)
    step_all(s, sequence(8, 1))
    s.add(sequence(8, 1))
    batch = s.next(0.0)
    assert batch is not None
    assert spans(batch.prefill) == [(4, 8, True)]


def test_prompts_that_begin_the_same_and_come_together_compute_it_once() -> None:
    s = scheduler(max_rows=30)
    for first in (0, 50, 70):
        one = sequence(8, 1)
        one.prompt += (first,)
        one.tokens = list(one.prompt)
        s.add(one)
    computed = [batch.num_rows for batch in iter(lambda: step(s), None)]
    assert computed == [9, 2]


def test_nobody_waits_for_a_prefix_that_shares_no_whole_page() -> None:
    s = scheduler(max_rows=30)
    for last in (0, 50, 70):
        one = sequence(3, 1)
        one.prompt += (last,)
        one.tokens = list(one.prompt)
        s.add(one)
    assert [batch.num_rows for batch in iter(lambda: step(s), None)] == [12]


def test_without_kept_prefixes_nothing_is_found() -> None:
    s = Scheduler(PagePool(NUM_PAGES, PAGE_SIZE), MAX_ROWS, MAX_RUNNING, keep_prefixes=False)
    step_all(s, sequence(9, 1))
    s.add(one := sequence(9, 1))
    s.next(0.0)
    assert one.num_cached == 0
    assert one.chain == []


def test_a_sequence_that_grows_takes_back_what_was_only_lent() -> None:
    s = scheduler(max_running=5)
    first, second = sequence(4, 16, first=100), sequence(4, 25, first=200)
    s.add(first)
    step(s)
    assert len(first.pages) == 5
    s.add(second)
    while step(s):
        assert s.num_preemptions <= 1
    assert (first.num_generated, second.num_generated) == (16, 25)


def test_the_newest_gives_way_and_ends_later_with_all_its_tokens() -> None:
    s = scheduler(max_running=5)
    old, new = sequence(4, 30, first=100), sequence(4, 30, first=200)
    s.add(old)
    s.add(new)
    while old.finish_reason is None:
        assert step(s) is not None
    assert old.num_preempted == 0
    assert s.num_preemptions == new.num_preempted == 1
    while step(s):
        pass
    assert new.num_generated == 30


def test_tokens_of_a_preempted_sequence_are_computed_one_by_one_again() -> None:
    s = scheduler(max_running=5)
    old, new = sequence(4, 30, first=100), sequence(4, 30, first=200)
    s.add(old)
    s.add(new)
    while not new.num_preempted:
        step(s)
    had = list(new.tokens)
    while not new.pages:
        step(s)
    while new.num_computed < len(had) - 1:
        batch = step(s, token=5)
        assert batch is not None
        singles = [work for work in batch.decode if work.sequence is new]
        assert all(work.stop - work.start == 1 and not work.samples for work in singles)
    assert new.tokens == had


def test_a_tenant_that_floods_does_not_hold_up_another() -> None:
    s = scheduler(max_running=2)
    for i in range(20):
        s.add(sequence(4, 4, tenant="flood", first=100 * i))
    step(s)
    step(s)
    s.add(small := sequence(4, 2, tenant="small", first=7000))
    batch = s.next(0.0)
    assert batch is not None
    assert small in [work.sequence for work in batch.prefill]


def test_service_is_shared_evenly_between_tenants_that_want_all() -> None:
    s = Scheduler(PagePool(100, PAGE_SIZE), 12, 4)
    served: Counter[str] = Counter()
    for i in range(400):
        tenant = "many" if i % 10 else "few"
        s.add(sequence(6, 4, tenant=tenant, first=100 * i))
    for _ in range(60):
        batch = step(s)
        assert batch is not None
        for work in batch.prefill:
            served[work.sequence.tenant] += work.stop - work.start
        for work in batch.decode:
            served[work.sequence.tenant] += 2
    assert 0.85 < served["few"] / served["many"] < 1.15


def test_who_comes_back_has_saved_nothing_up() -> None:
    s = Scheduler(PagePool(100, PAGE_SIZE), 4, 4)
    for i in range(30):
        s.add(sequence(4, 1, tenant="busy", first=100 * i))
    for _ in range(20):
        step(s)
    for i in range(10):
        s.add(sequence(4, 1, tenant="late", first=100 * i))
    turns = [step(s) for _ in range(8)]
    tenants = Counter(b.works[0].sequence.tenant for b in turns if b is not None)
    assert tenants == {"busy": 4, "late": 4}


def test_who_has_waited_too_long_comes_before_the_least_served() -> None:
    s = Scheduler(PagePool(100, PAGE_SIZE), 4, 4, max_age_s=10.0)
    s.waiting.charge("served", 1000.0)
    s.add(other := sequence(4, 1, tenant="new", first=900))
    s.add(old := sequence(4, 1, tenant="served", first=0))
    s.waiting.charge("served", 1000.0)
    batch = step(s, now=9.0)
    assert batch is not None
    assert batch.prefill[0].sequence is other
    s.add(sequence(4, 1, tenant="new", first=300, arrived=12.0))
    batch = s.next(12.0)
    assert batch is not None
    assert batch.prefill[0].sequence is old


def test_more_sequences_than_may_run_take_turns() -> None:
    s = Scheduler(PagePool(100, PAGE_SIZE), 8, 2)
    for i in range(4):
        s.add(sequence(2, 12, tenant=str(i % 2), first=100 * i))
    s.add(extra := sequence(2, 12, tenant="third", first=900))
    while s.waiting:
        step(s)
        if extra.num_generated:
            break
    for _ in range(30):
        batch = step(s)
        assert batch is None or len(batch.decode) <= 2
    assert not s.running or extra.finish_reason


def test_deadlines_are_told() -> None:
    s = scheduler()
    late, soon = sequence(3), sequence(3, first=200)
    late.deadline, soon.deadline = 20.0, 10.0
    for one in (late, soon):
        s.add(one)
    assert s.next_deadline() == 10.0
    step(s)
    assert s.expired(9.9) == []
    assert s.expired(10.0) == [soon]
    assert set(s.expired(20.0)) == {late, soon}


def step_all(s: Scheduler, *sequences: TokenSequence) -> None:
    """Run these to their ends."""
    for one in sequences:
        s.add(one)
    while step(s):
        pass
    assert all(one.finish_reason for one in sequences)
