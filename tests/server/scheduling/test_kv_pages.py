"""Pages of running sequences stay neighbours, although kept prefixes break the cache up."""

from itertools import pairwise

from server.scheduling.kv_pages import KvPages
from server.scheduling.page_pool import PagePool
from server.scheduling.sequence import Sampling, TokenSequence

PAGE = 4


def sequence(number: int, prompt: int = 8, new: int = 8) -> TokenSequence:
    """Return a sequence whose prompt begins as no other's."""
    tokens = tuple(1000 * number + i for i in range(prompt))
    return TokenSequence(tokens, Sampling(max_tokens=new))


def run_alone(pages: KvPages, one: TokenSequence) -> list[int]:
    """Give a sequence its pages, compute its prompt, end it; return the pages it had."""
    assert pages.take(one, spare=0)
    had = list(one.pages)
    one.num_computed = len(one.prompt)
    pages.keep(one)
    pages.check_integrity([one])
    pages.release(one)
    return had


def test_new_sequences_go_on_to_have_neighbouring_pages() -> None:
    pages = KvPages(pool := PagePool(40, PAGE))
    for number in range(60):
        had = run_alone(pages, sequence(number))
        assert all(after == page + 1 for page, after in pairwise(had)), number
    assert 40 - pool.num_free >= 10, "and prefixes are kept all the same"


def test_prefixes_are_not_given_up_where_neighbours_are_free_anyway() -> None:
    pages = KvPages(pool := PagePool(400, PAGE))
    for number in range(20):
        run_alone(pages, sequence(number))
    assert 400 - pool.num_free == 40, "the pages that are kept"


def test_a_pool_that_has_a_run_says_so() -> None:
    pool = PagePool(8, PAGE)
    taken = pool.allocate(8)
    assert taken is not None
    assert not pool.has_run(1)
    pool.release([1, 2, 4, 6, 7, 8])
    assert pool.has_run(3)
    assert not pool.has_run(4)
    assert pool.has_run(0)
