"""Texts become tokens beside the event loop; long ones take turns on threads of their own."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from server.errors import Overloaded

T = TypeVar("T")

#: Characters of a text that takes a few milliseconds.
_SHORT = 1 << 16
#: A long text takes a core; the others are for steps and for all other requests.
_CORES_A_THREAD = 4
_MAX_WAITING = 64


class Tokenizing:
    """Runs what tokenizes the texts of a request.

    However many long texts wait, a short one does not wait for them.

    Args:
        max_waiting: requests with long texts that wait or run; more are refused.
    """

    def __init__(self, max_waiting: int = _MAX_WAITING) -> None:
        count = max(1, (os.cpu_count() or 1) // _CORES_A_THREAD)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="overtone-long-texts")
        self._max_waiting = max_waiting
        self._num_long = 0

    async def run(self, num_chars: int, work: Callable[[], T]) -> T:
        """Return the result of `work` on a thread.

        Args:
            num_chars: of the texts that it tokenizes.
            work: safe on any thread. Cancelled before it has begun, it never begins.

        Raises:
            Overloaded: too many long texts wait.
        """
        if num_chars <= _SHORT:
            return await asyncio.to_thread(work)
        if self._num_long >= self._max_waiting:
            raise Overloaded(f"{self._num_long} long texts wait already; try again in a moment")
        self._num_long += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._num_long -= 1

    def close(self) -> None:
        """Begin no work any more, and wait for what has begun."""
        self._threads.shutdown(cancel_futures=True)
