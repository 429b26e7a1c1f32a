"""Parts of a merge on several threads: each once, and beside a running step on one thread alone."""

import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from adapters_core.layers import merge_threads
from adapters_core.layers.merge_threads import MergeThreads

LONG_S = 30.0


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., MergeThreads]]:
    """Give what makes merge threads on a machine of three, whatever this one is."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    all_made: list[MergeThreads] = []

    def make(is_idle: Callable[[], bool] = lambda: True) -> MergeThreads:
        all_made.append(MergeThreads(is_idle))
        return all_made[-1]

    yield make
    for one in all_made:
        one.close()


def test_every_part_runs_once(made: Callable[..., MergeThreads]) -> None:
    ran: list[int] = []
    threads = made()
    for count in (0, 1, 2, 100):
        ran.clear()
        threads.run([lambda i=i: ran.append(i) for i in range(count)])
        assert sorted(ran) == list(range(count))


def test_parts_run_side_by_side_where_nothing_else_does(made: Callable[..., MergeThreads]) -> None:
    together = threading.Barrier(3)  # three parts that wait for each other
    made().run([lambda: together.wait(LONG_S)] * 3)
    assert not together.broken


def test_beside_a_step_the_merge_keeps_to_its_thread(made: Callable[..., MergeThreads]) -> None:
    ran: list[threading.Thread] = []
    made(lambda: False).run([lambda: ran.append(threading.current_thread())] * 20)
    assert set(ran) == {threading.current_thread()}
    assert len(ran) == 20


def test_help_ends_with_the_part_in_which_a_step_begins(made: Callable[..., MergeThreads]) -> None:
    """After that the merge's own thread alone takes parts."""
    own, idle = threading.current_thread(), threading.Event()
    idle.set()
    helped, after = threading.Event(), list[threading.Thread]()

    def part() -> None:
        if not idle.is_set():
            after.append(threading.current_thread())
        elif threading.current_thread() is own:
            assert helped.wait(LONG_S)
        else:
            idle.clear()  # a step begins
            helped.set()

    made(idle.is_set).run([part] * 50)
    assert helped.is_set()
    # At most one part a helping thread was under way or taken as the step began.
    assert len([one for one in after if one is not own]) <= 2
    assert own in after


def test_help_comes_back_when_the_step_is_over(made: Callable[..., MergeThreads]) -> None:
    own, ran = threading.current_thread(), list[threading.Thread]()
    helped = threading.Event()

    def part() -> None:
        ran.append(threading.current_thread())
        if threading.current_thread() is not own:
            helped.set()
        elif len(ran) > 10:  # nothing runs from here on
            assert helped.wait(LONG_S)

    made(lambda: len(ran) >= 10).run([part] * 40)
    assert len(ran) == 40
    assert set(ran[:10]) == {own}
    assert helped.is_set()


@pytest.mark.parametrize("is_idle", [True, False])
def test_what_a_part_raises_is_raised(made: Callable[..., MergeThreads], is_idle: bool) -> None:
    def fails() -> None:
        raise ArithmeticError("a part")

    threads = made(lambda: is_idle)
    for place in range(3):
        parts: list[Callable[[], None]] = [lambda: None] * 3
        parts[place] = fails
        with pytest.raises(ArithmeticError, match="a part"):
            threads.run(parts)
    ran: list[int] = []
    threads.run([lambda: ran.append(1)] * 5)  # nothing is left of those that failed
    assert ran == [1] * 5


def test_one_thread_of_torch_means_one_of_a_merge(
    made: Callable[..., MergeThreads], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    ran: list[threading.Thread] = []
    made().run([lambda: ran.append(threading.current_thread())] * 20)
    assert set(ran) == {threading.current_thread()}


def test_there_are_never_more_threads_than_memory_feeds(
    made: Callable[..., MergeThreads], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    most = merge_threads._MOST_THREADS
    ran: set[threading.Thread] = set()
    together = threading.Barrier(most)

    def part() -> None:
        ran.add(threading.current_thread())
        together.wait(LONG_S)

    made().run([part] * (3 * most))
    assert len(ran) == most
