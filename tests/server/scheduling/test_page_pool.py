"""Pages: none lost, none held twice, neighbours preferred."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.scheduling.page_pool import PagePool

NUM_PAGES = 24


@pytest.mark.parametrize(("tokens", "pages"), [(1, 1), (32, 1), (33, 2), (64, 2), (65, 3)])
def test_pages_for_rounds_up(tokens: int, pages: int) -> None:
    assert PagePool(4, 32).pages_for(tokens) == pages


def test_page_zero_is_never_given() -> None:
    assert PagePool(3, 32).allocate(3) == [1, 2, 3]


def test_too_many_pages_are_refused_and_nothing_is_taken() -> None:
    pool = PagePool(3, 32)
    assert pool.allocate(4) is None
    assert pool.num_free == 3


def test_neighbours_are_preferred_to_earlier_pages() -> None:
    pool = PagePool(8, 32)
    pages = pool.allocate(8)
    assert pages is not None
    pool.release([1, 3, 5, 6, 7])
    assert pool.allocate(3) == [5, 6, 7]


def test_scattered_pages_serve_where_neighbours_are_missing() -> None:
    pool = PagePool(8, 32)
    pool.allocate(8)
    pool.release([2, 4, 5])
    assert pool.allocate(3) == [2, 4, 5]


def test_freeing_twice_is_a_broken_invariant() -> None:
    pool = PagePool(4, 32)
    pages = pool.allocate(2)
    assert pages is not None
    pool.release(pages)
    with pytest.raises(AssertionError, match="freed twice"):
        pool.release(pages)


class PoolMachine(RuleBasedStateMachine):
    """Holders come and go; together with the free ones their pages are always all pages."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(NUM_PAGES, 32)
        self.held: list[list[int]] = []

    @rule(count=st.integers(1, NUM_PAGES + 2))
    def allocate(self, count: int) -> None:
        free = self.pool.num_free
        pages = self.pool.allocate(count)
        assert (pages is None) == (count > free)
        if pages is not None:
            assert len(pages) == count
            assert pages == sorted(pages)
            self.held.append(pages)

    @rule(count=st.integers(1, NUM_PAGES))
    def a_run_is_found_if_there_is_one(self, count: int) -> None:
        taken = {page for pages in self.held for page in pages}
        runs = [
            start
            for start in range(1, NUM_PAGES - count + 2)
            if not taken & set(range(start, start + count))
        ]
        pages = self.pool.allocate(count)
        if pages is None:
            return
        assert (pages[-1] - pages[0] == count - 1) == bool(runs)
        self.pool.release(pages)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.pool.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @invariant()
    def no_page_is_lost_or_held_twice(self) -> None:
        held = [page for pages in self.held for page in pages]
        assert sorted(held + self.pool._free) == list(range(1, NUM_PAGES + 1))
        assert self.pool.num_free == NUM_PAGES - len(held)


PoolMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestPoolMachine = PoolMachine.TestCase
