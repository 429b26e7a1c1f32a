"""One batch under this server's claim, from its file's check to its results.

A claim that is lost, a cancel, the end of its time and the server's own end stop it wherever it is;
what is answered by then is on the disk, and the next claim goes on from there.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any, Literal

from registry import (
    BatchRecord,
    FenceLost,
    FileNotFound,
    JobConflict,
    RegistryError,
    RegistryUnavailable,
)
from registry.batches.record import State
from registry.batches.requests import RequestFault
from registry.batches.segments import Answers
from server.api.batch_creation import caller_of
from server.batches.feed import Feed
from server.batches.request_answer import Outcome, outcome_of
from server.batches.results import finish, note_expired
from server.batches.source import Beside, Source, Sourced
from server.service import Service

_LOG = logging.getLogger("overtone.batches")
Why = Literal["cancelled", "expired", "lost", "stopping"]
#: Reasons after which nothing more is written.
_AT_ONCE: tuple[Why, ...] = ("lost", "stopping")
_FIRST_WAIT_S, _LAST_WAIT_S = 0.2, 5.0


class BatchRun:
    """Runs one batch; all of it on one event loop.

    Args:
        service: that answers.
        held: the batch, claimed.
        width: requests that are open at a time.
        beat_s: between two heartbeats.
        beside: runs what blocks.
        beside_beats: runs heartbeats; nothing that takes long may be before them.
    """

    def __init__(
        self,
        service: Service,
        held: BatchRecord,
        width: int,
        beat_s: float,
        beside: Beside,
        beside_beats: Beside,
    ) -> None:
        self.held = held
        self._service, self._registry = service, service.registry
        self._width, self._beat_s = width, beat_s
        self._beside, self._beside_beats = beside, beside_beats
        self._looked_for = asyncio.Event()
        self._stopped = asyncio.Event()
        self._why: Why | None = None
        self._is_over = False
        self._answers: Answers | None = None
        self._feed: Feed | None = None

    def look(self) -> None:
        """Ask the registry at once whether to go on."""
        self._looked_for.set()

    def stop(self, why: Why) -> None:
        """Stop; the first reason counts, unless this server may not go on at all."""
        self._why = why if why in _AT_ONCE else self._why or why
        self._stopped.set()

    async def run(self) -> None:
        """Run the batch to its end, or until it is to stop; nothing is raised."""
        watch = asyncio.create_task(self._watch())
        try:
            await self._run()
        except FenceLost:
            _LOG.warning("%s is another server's now", self.held.id)
        except Exception:  # not given back: it is taken up again when it was silent for a while
            _LOG.exception("%s has failed here; it is taken up again", self.held.id)
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            if self._answers is not None:
                self._answers.close()

    async def _run(self) -> None:
        if self.held.state == "cancelling":
            self.stop("cancelled")
        elif faults := await self._retried(self._faults):
            await self._failed(faults)
            if self._is_over:
                return
        answers = self._answers = await self._retried(self._opened)
        if answers is not None and self._why != "cancelled":
            path = await self._beside(self._registry.files.open, self.held.spec.input_file)
            with closing(Source(path, answers, self._beside)) as source:
                await self._through(source, answers)
        if self._why in _AT_ONCE:
            await self._release()
        elif not self._is_over:
            await self._finished(answers)

    async def _through(self, source: Source, answers: Answers) -> None:
        """Run all requests; afterwards all are answered, or there is a reason to stop."""
        if self.held.state == "validating" and not await self._moved(self._claims.begin):
            self.stop("cancelled")
        await self._fed(source, answers)
        if self._why == "expired":
            await self._retried(lambda: note_expired(source, answers))
        if self._why is not None:
            return
        if not answers.are_whole:
            await self._failed([RequestFault("input_file_lost", "the file's end is not there")])
            return
        await self._retried(answers.sync)
        if self.held.state != "finalizing" and not await self._moved(self._claims.finalize):
            self.stop("cancelled")

    async def _finished(self, answers: Answers) -> None:
        to: State = self._why if self._why in ("cancelled", "expired") else "completed"
        ended = await self._retried(lambda: finish(self._registry, self.held, to, answers))
        if ended is not None:
            _LOG.info("%s is %s: %s", self.held.id, to, ended.counts)

    async def _failed(self, faults: Sequence[RequestFault]) -> None:
        fail = partial(self._claims.fail, self.held, faults)
        if await self._retried(lambda: fail(now=time.time())) is not None:
            self._is_over = True
            _LOG.info("%s has failed: %s", self.held.id, faults[0].message)

    @property
    def _claims(self) -> Any:
        return self._registry.batch_claims

    def _faults(self) -> list[RequestFault]:
        """Return what is wrong with the batch's file, seen when it was uploaded."""
        spec = self.held.spec
        try:
            facts = self._registry.files.get(spec.input_file).facts
            self._registry.files.open(spec.input_file)
        except FileNotFound as error:
            return [RequestFault("input_file_lost", error.message, None, "input_file_id")]
        if facts.get("faults"):
            return [RequestFault(**fault) for fault in facts["faults"]]
        if facts.get("endpoint") != spec.endpoint:
            message = f"the file's requests are for {facts.get('endpoint')}, not {spec.endpoint}"
            return [RequestFault("mismatched_endpoint", message, 1, "endpoint")]
        return []

    def _opened(self) -> Answers:
        total = self.held.counts.total
        return self._registry.batch_folders.open(self.held.claim, total, lambda: time.sleep(0))

    async def _fed(self, source: Source, answers: Answers) -> None:
        """Run what is not answered yet, until all is or the batch is to stop."""
        if self._why is not None:
            return
        feed = self._feed = Feed(source, answers, self._outcome, self._width, self._beside)
        work = asyncio.create_task(feed.to_end())
        stop = asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            for task in (work, stop):
                task.cancel()
            await asyncio.gather(work, stop, return_exceptions=True)
        if self._why in ("cancelled", "expired"):
            await self._retried(lambda: answers.add(feed.unkept))

    async def _outcome(self, one: Sourced) -> Outcome:
        outcome = await outcome_of(self._service, one.request, caller_of(self.held.spec))
        self._service.metrics.on_batch_request(outcome.is_good)
        return outcome

    async def _moved(self, move: Callable[..., BatchRecord]) -> bool:
        """Make a move; False where the batch was cancelled meanwhile."""
        try:
            moved = await self._retried(lambda: move(self.held, now=time.time()))
        except FenceLost:
            raise
        except JobConflict:
            return False
        self.held = moved or self.held
        return True

    async def _retried(self, work: Callable[[], Any]) -> Any:
        """Do what ends a part, again and again while registry or disk do not allow it.

        Returns:
            its result; None where the batch is to stop first.
        """
        wait_s = _FIRST_WAIT_S
        while self._why not in _AT_ONCE:
            try:
                return await self._beside(work)
            except (RegistryUnavailable, OSError) as error:
                _LOG.warning("%s waits: %s", self.held.id, error)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LAST_WAIT_S)
        return None

    async def _release(self) -> None:
        """Give the batch back, so that another server, or the next start, takes it at once."""
        counts = None if self._answers is None else self._answers.counts
        try:
            await self._beside(self._claims.release, self.held.claim, counts)
        except RegistryError:
            return  # it is taken back when no heartbeat comes

    async def _watch(self) -> None:
        while self._why not in _AT_ONCE:
            await self._look()
            try:
                async with asyncio.timeout(self._beat_s):
                    await self._looked_for.wait()
            except TimeoutError:
                pass
            self._looked_for.clear()

    async def _look(self) -> None:
        """Send a heartbeat and look whether to go on, and whether to begin more."""
        counts = None if self._answers is None else self._answers.counts
        may_begin = False
        try:
            state = await self._beside_beats(self._claims.report, self.held.claim, counts)
            may_begin = await self._beside_beats(self._has_room)
        except (RegistryError, OSError):
            state = self.held.state
        if state is None:
            self.stop("lost")
        elif state == "cancelling":
            self.stop("cancelled")
        elif time.time() >= self.held.expires_at:
            self.stop("expired")
        if self._feed is not None:
            (self._feed.go_on if may_begin else self._feed.hold)()

    def _has_room(self) -> bool:
        return self._registry.free_bytes() >= self._service.settings.reserve_bytes
