"""The loop that turns accepted sequences into tokens, in a thread of its own.

Every accepted sequence ends in exactly one last event: its last token, or a failure. Nothing is
told after it. Events of one step are handed over together, once per step and receiver.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from server.engine import Engine
from server.errors import Draining, InternalError, Overloaded
from server.loader import Loader
from server.observer import Observer, StepStats
from server.planner import Mode, Planner
from server.residency import Entry
from server.scheduler import Batch, Scheduler
from server.sequence import Sampled, Sampling, Sequence

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

    sequence: Sequence
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
        loader: Loader,
        planner: Planner,
        observer: Observer,
        max_waiting: int,
        flush: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._scheduler = scheduler
        self._loader = loader
        self._planner = planner
        self._observer = observer
        self._max_waiting = max_waiting
        self._flush = flush
        self._clock = clock
        self._inbox: deque[Callable[[], None]] = deque()
        self._generations: dict[Sequence, Generation] = {}
        self._num_open = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._draining = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="overtone-engine", daemon=True)

    def start(self) -> None:
        """Start the loop."""
        self._thread.start()

    def submit(
        self, prompt: tuple[int, ...], sampling: Sampling, digest: str | None, sink: Sink
    ) -> Generation:
        """Accept a sequence for the adapter `digest` (None: the base); safe from any thread.

        Raises:
            Overloaded: too many sequences are waiting.
            Draining: the server is going down.
        """
        with self._lock:
            if self._draining:
                raise Draining("the server is going down; send the request to another one")
            if self._num_open >= self._max_waiting + self._scheduler.max_running:
                raise Overloaded(f"{self._num_open} sequences are open; try again in a second")
            self._num_open += 1
            mode = self._planner.choose(digest) if digest else None
        try:
            lease = self._loader.acquire(digest, mode) if digest and mode else None
        except Exception:
            with self._lock:
                self._num_open -= 1
            self._wake.set()
            raise
        now = self._clock()
        sequence = Sequence(prompt, sampling, lease, now)
        generation = Generation(sequence, sink, mode, now)
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
        while self._num_open and self._clock() < deadline and self._thread.is_alive():
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
        return self._num_open

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
        batch = self._scheduler.next(self._clock())
        if batch is None:
            self._flush()
            self._wake.wait()
        else:
            self._step(batch)

    def _end_all(self) -> None:
        """Fail what is open; what was counted as open may still be on its way to the inbox."""
        while self._num_open:
            self._wake.clear()
            self._read_inbox()
            for generation in list(self._generations.values()):
                self._fail(generation, Draining("the server went down"))
            self._flush()
            if self._num_open:
                self._wake.wait()

    def _step(self, batch: Batch) -> None:
        started = self._clock()
        try:
            tokens = self._engine.step(batch)
        except Exception:
            _LOG.exception("a step failed; its %d sequences end", len(batch.works))
            for work in batch.works:
                self._fail(self._generations[work.sequence], InternalError("the engine failed"))
            self._flush()
            return
        self._deliver(batch, tokens)
        self._flush()
        self._observer.on_step(self._stats(batch, self._clock() - started))

    def _deliver(self, batch: Batch, tokens: list[Sampled | None]) -> None:
        """Advance the scheduler and tell every sequence its token."""
        told = [work.sequence for work in batch.works if work.samples]
        self._scheduler.advance(batch, [t or Sampled(0) for t in tokens])
        for sequence, token in zip(told, tokens, strict=True):
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

    def _stats(self, batch: Batch, seconds: float) -> StepStats:
        leases = [work.sequence.lease for work in batch.works]
        keys = {lease.key for lease in leases if isinstance(lease, Entry)}
        modes = {key[1] for key in keys if isinstance(key, tuple)} | (
            {"base"} if None in leases else set()
        )
        return StepStats(
            seconds=seconds,
            mode=modes.pop() if len(modes) == 1 else "mixed",
            num_rows=batch.num_rows,
            num_adapters=len(keys),
            num_running=len(self._scheduler.running),
            num_waiting=len(self._scheduler.waiting),
            prompt_tokens=sum(work.stop - work.start for work in batch.prefill),
            generated_tokens=sum(work.samples for work in batch.works),
        )

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
            self._loader.release(generation.sequence.lease)
        with self._lock:
            self._num_open -= 1
