"""The loop that turns accepted sequences into tokens, in a thread of its own.

Every accepted sequence ends in exactly one last event: its last token, or a failure. Nothing is
told after it. Events of one step are handed over together, once per step and receiver.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from server.adapters.faults import errors_to_report, run_apart
from server.adapters.modes import Mode
from server.adapters.residency import Entry
from server.engine.engine import Engine
from server.errors import DeadlineExceeded, Draining, InternalError
from server.generation.step_stats import stats_of
from server.planning.placement import Placement
from server.scheduling.admission import Open
from server.scheduling.scheduler import Scheduler
from server.scheduling.sequence import Sampled, Sampling, TokenSequence
from server.scheduling.step import Batch, Work
from server.telemetry.observer import Observer

_LOG = logging.getLogger("overtone.runtime")


@dataclass(frozen=True)
class TokenEvent:
    """A sequence has one more token; `finish_reason` is set on its last one."""

    sampled: Sampled
    finish_reason: str | None


@dataclass(frozen=True)
class FailedEvent:
    """A sequence ended without an answer."""

    error: Exception


Event = TokenEvent | FailedEvent
#: Receives the events of a sequence, on the runtime's thread; must be quick.
Sink = Callable[[Event], None]


@dataclass(eq=False)
class Generation:
    """An accepted request for one sequence: the handle to cancel it by."""

    sequence: TokenSequence
    sink: Sink
    mode: Mode | None
    last_event_at: float = 0.0
    is_over: bool = False


class Runtime:
    """Owns the scheduler; all of its state changes on the loop's thread.

    Args:
        flush: called after each step that told any events, so that receivers can batch them.
    """

    def __init__(
        self,
        engine: Engine,
        scheduler: Scheduler,
        placement: Placement,
        observer: Observer,
        max_waiting: int,
        flush: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._scheduler = scheduler
        self._placement = placement
        self._observer = observer
        self._flush = flush
        self._clock = clock
        self._inbox: deque[Callable[[], None]] = deque()
        self._generations: dict[TokenSequence, Generation] = {}
        self._open = Open(max_waiting + scheduler.max_running, "sequences")
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._draining = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="overtone-engine", daemon=True)

    def start(self) -> None:
        """Start the loop."""
        self._thread.start()

    def submit(
        self,
        prompt: tuple[int, ...],
        sampling: Sampling,
        digest: str | None,
        sink: Sink,
        tenant: str = "",
        timeout_s: float | None = None,
        mode: Mode | None = None,
    ) -> Generation:
        """Accept a sequence for the adapter `digest` (None: the base); safe from any thread.

        Args:
            prompt: token ids.
            sampling: how to go on.
            digest: of the adapter.
            sink: told every event.
            tenant: whose sequence it is; each has a queue of its own length.
            timeout_s: from now on; what has no end by then fails.
            mode: keep to this one: another sequence of the same request has it.

        Raises:
            Overloaded: too many of the tenant's sequences are open.
            Draining: the server is going down.
        """
        with self._lock:
            if self._draining:
                raise Draining("the server is going down; send the request to another one")
            self._open.begin(tenant, self._clock())
            num_open = self.num_open - 1
        try:
            placed = self._placement.place(digest, len(prompt), sampling.max_tokens, num_open, mode)
        except Exception:
            with self._lock:
                self._open.end(tenant, self._clock())
            self._wake.set()
            raise
        now = self._clock()
        deadline = None if timeout_s is None else now + timeout_s
        sequence = TokenSequence(prompt, sampling, placed.lease, now, tenant, deadline)
        sequence.border = self._engine.border
        generation = Generation(sequence, sink, placed.mode, now)
        self._post(lambda: self._accept(generation))
        return generation

    def cancel(self, generation: Generation) -> None:
        """End a generation before its next step; nothing happens if it is over."""
        self._post(lambda: self._close(generation))

    def wake(self) -> None:
        """Look for work again: an adapter has become ready or has failed."""
        self._wake.set()

    def drain(self) -> None:
        """Take nothing new; what is open goes on."""
        with self._lock:
            self._draining = True

    def stop(self, timeout_s: float = 30.0) -> None:
        """Drain, let open generations end for up to `timeout_s`, fail the rest, end the loop."""
        self.drain()
        deadline = self._clock() + timeout_s
        while self.num_open and self._clock() < deadline and self._thread.is_alive():
            self._thread.join(0.02)
        self._stopping = True
        self._wake.set()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Return whether the loop runs."""
        return self._thread.is_alive()

    @property
    def num_open(self) -> int:
        """Return how many generations were accepted and are not over."""
        return self._open.total

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        except Exception:
            _LOG.exception("the loop has died")
        finally:
            self.drain()
            self._end_all()

    def _turn(self) -> None:
        """Run one step, or wait until there is something to do."""
        self._wake.clear()
        self._read_inbox()
        self._fail_unloadable()
        self._fail_expired()
        batch = self._scheduler.next(self._clock())
        if batch is None:
            self._flush()
            scheduler = self._scheduler
            self._observer.on_queue(len(scheduler.running), len(scheduler.waiting))
            self._wake.wait(self._seconds_to_deadline())
        else:
            self._step(batch)

    def _end_all(self) -> None:
        """Fail what is open; what was counted as open may still be on its way to the inbox."""
        while self.num_open:
            self._wake.clear()
            self._read_inbox()
            for generation in list(self._generations.values()):
                self._fail(generation, Draining("the server went down"))
            self._flush()
            if self.num_open:
                self._wake.wait()

    def _step(self, batch: Batch) -> None:
        started = self._clock()
        # Those of one adapter side by side: one that fails is found in few halvings.
        works = sorted(batch.works, key=lambda work: id(work.sequence.lease))
        outcome = run_apart(works, lambda some: self._computed(batch.only(some), some))
        for work, error in errors_to_report(outcome, lambda work: work.sequence.lease).items():
            self._fail(self._generations[work.sequence], error)
        done = batch.only(outcome.results)
        self._deliver(done, outcome.results)
        self._flush()
        if done.works:
            self._observer.on_step(stats_of(done, self._scheduler, self._clock() - started))

    def _computed(self, batch: Batch, works: Sequence[Work]) -> list[Sampled | None]:
        """Return each work's token; None for what has none, or went wrong."""
        try:
            tokens = self._engine.step(batch)
        except Exception:
            for work in works:
                work.sequence.rewind()
            raise
        told = (work for work in batch.works if work.samples)
        found = dict(zip(told, tokens, strict=True))
        return [found.get(work) for work in works]

    def _deliver(self, batch: Batch, tokens: Mapping[Work, Sampled | None]) -> None:
        """Advance the scheduler and tell every sequence its token."""
        told = [work for work in batch.works if work.samples]
        self._scheduler.advance(batch, [tokens[work] or Sampled(0) for work in told])
        for work in told:
            sequence, token = work.sequence, tokens[work]
            generation = self._generations[sequence]
            if token is None:
                error = "the adapter's answer is not finite (NaN): its coefficients are too large"
                self._fail(generation, InternalError(error))
                continue
            self._time(generation)
            generation.sink(TokenEvent(token, sequence.finish_reason))
            if sequence.finish_reason:
                self._close(generation)

    def _time(self, generation: Generation) -> None:
        now, sequence = self._clock(), generation.sequence
        if sequence.num_generated == 1:
            waited = (sequence.admitted or now) - sequence.arrived
            self._observer.on_first_token(now - sequence.arrived, waited)
        else:
            self._observer.on_next_token(now - generation.last_event_at)
        generation.last_event_at = now

    def _post(self, action: Callable[[], None]) -> None:
        self._inbox.append(action)
        self._wake.set()

    def _read_inbox(self) -> None:
        while self._inbox:
            self._inbox.popleft()()

    def _accept(self, generation: Generation) -> None:
        self._generations[generation.sequence] = generation
        self._scheduler.add(generation.sequence)

    def _fail_unloadable(self) -> None:
        """Fail the waiting sequences whose adapter could not be loaded."""
        for sequence in list(self._scheduler.waiting):
            lease = sequence.lease
            if isinstance(lease, Entry) and lease.error is not None:
                self._fail(self._generations[sequence], lease.error)

    def _fail_expired(self) -> None:
        for sequence in self._scheduler.expired(self._clock()):
            message = f"no end within the request's time; {sequence.num_generated} tokens were made"
            self._fail(self._generations[sequence], DeadlineExceeded(message))

    def _seconds_to_deadline(self) -> float | None:
        deadline = self._scheduler.next_deadline()
        return None if deadline is None else max(0.0, deadline - self._clock())

    def _fail(self, generation: Generation, error: Exception) -> None:
        if not generation.is_over:
            generation.sink(FailedEvent(error))
            self._close(generation)

    def _close(self, generation: Generation) -> None:
        """Forget a generation and give back what it held."""
        if generation.is_over:
            return
        generation.is_over = True
        self._scheduler.remove(generation.sequence)
        self._generations.pop(generation.sequence, None)
        if isinstance(generation.sequence.lease, Entry):
            self._placement.release(generation.sequence.lease)
        with self._lock:
            self._open.end(generation.sequence.tenant, self._clock())
