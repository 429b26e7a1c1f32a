"""Threads that share the parts of a merge while nothing else runs.

A merge reads and writes whole weights, so one core's share of the memory's speed bounds it. Beside
a running step it keeps to its own thread: the step has the other cores. Parts write numbers of
their own, and how a merge is cut into them does not depend on the thread, so neither do bits.
"""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

#: One of the parts of a merge.
Part = Callable[[], None]
#: Threads of one merge in all: more would wait for memory.
_MOST_THREADS = 4


class MergeThreads:
    """As many threads as torch may use, but one: that of the merge itself; safe from any thread.

    Args:
        is_idle: whether no step runs; asked before each part.
        begin: called by each thread before its first part.
    """

    def __init__(
        self, is_idle: Callable[[], bool], begin: Callable[[], None] = lambda: None
    ) -> None:
        self._is_idle = is_idle
        self._count = min(torch.get_num_threads(), _MOST_THREADS) - 1
        self._pool = ThreadPoolExecutor(max(1, self._count), "overtone-parts", initializer=begin)

    def run(self, parts: Iterable[Part]) -> None:
        """Run all parts, each once, in any order; on return all have ended.

        Raises:
            Exception: what a part raised; others may then not have run.
        """
        left, helping = deque(parts), list[Future[None]]()
        try:
            while left:
                helping = self._with_help(left, helping)
                _run_next(left)
        finally:
            left.clear()
            for one in helping:
                if not one.cancel():
                    one.result()

    def close(self) -> None:
        """End the threads when their parts are over."""
        self._pool.shutdown()

    def _with_help(self, left: deque[Part], helping: list[Future[None]]) -> list[Future[None]]:
        """Return the futures of those that help now, begun anew where they had ended."""
        for ended in (one for one in helping if one.done()):
            ended.result()
        helping = [one for one in helping if not one.done()]
        wanted = min(self._count, len(left) - 1) if self._is_idle() else 0
        return helping + [self._pool.submit(self._help, left) for _ in range(wanted - len(helping))]

    def _help(self, left: deque[Part]) -> None:
        while left and self._is_idle():
            _run_next(left)


def _run_next(left: deque[Part]) -> None:
    """Run the next part; another thread may have taken the last one."""
    try:
        part = left.popleft()
    except IndexError:
        return
    part()
