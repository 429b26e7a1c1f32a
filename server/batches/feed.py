"""Runs a batch's requests, a bounded number at a time, and keeps their answers as they come.

Nothing is lost where it cannot go on: while the disk is full or the registry away, answers that are
there wait in memory, and no further request is begun.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

from registry import Answered
from registry.batches.segments import Answers
from server.api.json_answer import beside, num_values
from server.batches.lines import answered
from server.batches.request_answer import PASSING, Outcome
from server.batches.source import Beside, Source, Sourced

_LOG = logging.getLogger("overtone.batches")
#: Lines of requests that are open together may have so many bytes, beside a first one.
_OPEN_BYTES = 32 << 20
_FIRST_WAIT_S, _LAST_WAIT_S = 0.05, 2.0
_SYNC_EVERY_S = 5.0

Run = Callable[[Sourced], Awaitable[Outcome]]


class Feed:
    """One batch's requests on their way; all of it on one event loop.

    Args:
        source: of the requests.
        answers: where they go.
        run: answers a request; raises one of `PASSING` if it is to be run again.
        width: requests that are open at a time.
        beside: runs what blocks.
    """

    def __init__(
        self, source: Source, answers: Answers, run: Run, width: int, beside: Beside
    ) -> None:
        self._source, self._answers, self._run = source, answers, run
        self._width, self._beside = width, beside
        self._may_begin = asyncio.Event()
        self._may_begin.set()
        self._changed = asyncio.Condition()
        self._unkept: list[Answered] = []
        self._open_bytes = 0

    def hold(self) -> None:
        """Begin no further request; those that are open go on."""
        self._may_begin.clear()

    def go_on(self) -> None:
        """Begin requests again."""
        self._may_begin.set()

    async def to_end(self) -> None:
        """Return once every request is answered; cancelling it gives up what is open.

        What was answered by then and is not kept yet is in `unkept`.
        """
        keeper = asyncio.create_task(self._keep())
        workers = [asyncio.create_task(self._work()) for _ in range(self._width)]
        try:
            await asyncio.gather(*workers)
            async with self._changed:
                await self._changed.wait_for(lambda: not self._unkept)
        finally:
            for task in (keeper, *workers):
                task.cancel()
            await asyncio.gather(keeper, *workers, return_exceptions=True)

    @property
    def unkept(self) -> list[Answered]:
        """Return what is answered and not kept yet."""
        return list(self._unkept)

    async def _work(self) -> None:
        while (one := await self._source.next()) is not None:
            await self._begin(one)
            try:
                await self._may_begin.wait()
                outcome = await self._outcome(one)
                line = partial(answered, one.number, one.request, outcome)
                self._unkept.append(await beside(num_values(outcome.body), line))
            finally:
                async with self._changed:
                    self._open_bytes -= one.size_bytes
                    self._changed.notify_all()

    async def _begin(self, one: Sourced) -> None:
        """Wait until there is room for one more."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._has_room(one.size_bytes))
            self._open_bytes += one.size_bytes

    def _has_room(self, size_bytes: int) -> bool:
        has_bytes = not self._open_bytes or self._open_bytes + size_bytes <= _OPEN_BYTES
        return has_bytes and len(self._unkept) < self._width

    async def _outcome(self, one: Sourced) -> Outcome:
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                return await self._run(one)
            except PASSING:
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _LAST_WAIT_S)
                await self._may_begin.wait()

    async def _keep(self) -> None:
        """Keep answers as they come; where the disk is full, as soon as it is not."""
        wait_s, synced = _FIRST_WAIT_S, time.monotonic()
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._unkept))
                some = self.unkept
            try:
                await self._beside(self._answers.add, some)
                if time.monotonic() - synced > _SYNC_EVERY_S:
                    await self._beside(self._answers.sync)
                    synced = time.monotonic()
            except OSError as error:
                _LOG.warning("a batch's answers cannot be kept now: %s", error.strerror)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _LAST_WAIT_S)
                continue
            wait_s = _FIRST_WAIT_S
            async with self._changed:
                del self._unkept[: len(some)]
                self._changed.notify_all()
