"""The loop that turns accepted sequences into tokens, in a thread of its own.

Every accepted sequence ends in exactly one last event: its last token, or a failure. Events of one
step are handed over together, once per step and receiver.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from server.adapters.faults import errors_to_report, run_apart
from server.adapters.modes import Mode
from server.adapters.residency import Entry
from server.engine.engine import Engine
from server.errors import DeadlineExceeded, InternalError, Overloaded
from server.generation.step_stats import accepted, load_of, open_sequences, stats_of
from server.planning.placement import Placement
from server.scheduling.admission import OpenRequests
from server.scheduling.batch_thread import BatchThread
from server.scheduling.scheduler import Scheduler
from server.scheduling.sequence import Constraint, Sampled, Sampling, TokenSequence
from server.scheduling.step import Batch, Work
from server.telemetry.observer import Observer, OpenSequences, ServingLoad


@dataclass(frozen=True)
class SequenceRequest:
    """A sequence to generate.

    Args:
        prompt: token ids, at least one.
        sampling: how tokens are chosen, and when to stop.
        digest: of the adapter; None for the base.
        tenant: has a queue of its own; tenants take turns.
        timeout_s: from acceptance on; a sequence that has not ended by then fails.
        mode: keep this mode: another sequence of the same HTTP request has it.
        constraint: what the answer must be like; None for anything.
        is_background: it runs in the room that others leave, and may be ended with `Overloaded`
            for them: it can be sent again. Not counted among a tenant's open sequences.
        adapter: the adapter's name, for metrics; empty for the base.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    digest: str | None = None
    tenant: str = ""
    timeout_s: float | None = None
    mode: Mode | None = None
    constraint: Constraint | None = None
    is_background: bool = False
    adapter: str = ""


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
#: Receives the events of a sequence, on the runtime's thread; must not block.
Sink = Callable[[Event], None]


@dataclass(eq=False)
class Generation:
    """An accepted request for one sequence: the handle to cancel it by."""

    sequence: TokenSequence
    sink: Sink
    mode: Mode | None
    last_event_at: float = 0.0
    first_event_at: float | None = None
    is_over: bool = False


class Runtime(BatchThread):
    """Owns the scheduler; all of its state changes on the runtime's thread.

    Args:
        engine: what computes a step.
        scheduler: what a step consists of.
        placement: gives each sequence its mode and its lease.
        observer: receives the statistics of every step.
        max_waiting: sequences of one tenant that may wait beside those that run.
        flush: called after each step that had events, so that receivers can batch them.
    """

    def __init__(
        self,
        engine: Engine,
        scheduler: Scheduler,
        placement: Placement,
        observer: Observer,
        max_waiting: int,
        flush: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(
            "overtone-engine",
            OpenRequests(max_waiting + scheduler.max_running, "sequences"),
            lambda: engine.prepare(scheduler.max_running),
        )
        self._engine = engine
        self._scheduler = scheduler
        self._placement = placement
        self._observer = observer
        self._flush = flush
        self._on_generated: Callable[[str, int], None] = lambda tenant, num_tokens: None
        self._generations: dict[TokenSequence, Generation] = {}

    def tell_generated(self, on_generated: Callable[[str, int], None]) -> None:
        """Call it with a tenant and the tokens that one of its sequences made, at its end.

        Not for those of the background. It is called on the runtime's thread; before `start`.
        """
        self._on_generated = on_generated

    def submit(self, request: SequenceRequest, sink: Sink) -> Generation:
        """Accept a sequence; safe from any thread. `sink` receives its events.

        Raises:
            Overloaded: too many of the tenant's sequences are open.
            Draining: the server is going down.
        """
        (generation,) = self.submit_all([(request, sink)])
        return generation

    def submit_all(self, requests: Sequence[tuple[SequenceRequest, Sink]]) -> list[Generation]:
        """Accept sequences that are to run side by side, or none of them; safe from any thread.

        The scheduler has all of them before its next step, and those of one adapter have one mode.

        Raises:
            Overloaded, Draining: as `submit` does.
        """
        now = time.monotonic()  # before a lease begins to load its adapter
        made: list[Generation] = []
        modes: dict[str | None, Mode | None] = {}
        try:
            for request, sink in requests:
                mode = modes.get(request.digest, request.mode)
                made.append(self._placed(replace(request, mode=mode), sink, now))
                modes[request.digest] = made[-1].mode
        except Exception:
            self._post(lambda: self._withdraw(made))
            raise
        self._post(lambda: self._accept(made))
        return made

    def _placed(self, request: SequenceRequest, sink: Sink, now: float) -> Generation:
        """Count a sequence as open, and take its lease."""
        prompt, sampling, constraint = request.prompt, request.sampling, None
        if request.constraint is not None:
            constraint = request.constraint.begin(sampling.stop_ids, prompt)
        if request.is_background:
            with self._counted_apart():
                placed = self._placement.place_beside(request.digest, request.mode)
        else:
            with self._counted(request.tenant) as num_open:
                placed = self._placement.place(
                    request.digest, len(prompt), sampling.max_tokens, num_open, request.mode
                )
        deadline = None if request.timeout_s is None else now + request.timeout_s
        sequence = TokenSequence(prompt, sampling, placed.lease, now, request.tenant, deadline)
        sequence.border = self._engine.border
        sequence.is_background = request.is_background
        sequence.adapter = request.adapter
        sequence.constraint = constraint
        return Generation(sequence, sink, placed.mode, now)

    def cancel(self, generation: Generation) -> None:
        """End a generation before its next step; nothing happens if it is over."""
        self._post(lambda: self._close(generation))

    def load(self) -> ServingLoad:
        """Return what there is to do now; safe from any thread."""
        return load_of(list(self._generations), self._scheduler)  # the copy is one step of Python

    def open_sequences(self) -> dict[str, OpenSequences]:
        """Return what is open by adapter, the empty name for the base; safe from any thread."""
        return open_sequences(list(self._generations))

    def _turn(self) -> None:
        """Run one step, or wait until there is something to do."""
        self._read_inbox()
        self._fail_unloadable()
        self._fail_expired()
        self._clear_memory()
        batch = self._scheduler.next(time.monotonic())
        if batch is None:
            self._flush()
            scheduler = self._scheduler
            self._observer.on_queue(len(scheduler.running), len(scheduler.waiting))
            self._observer.on_background(*scheduler.background.counts)
            self._wait(self._seconds_to_deadline())
        else:
            self._step(batch)

    def _end_accepted(self, error: Exception) -> None:
        for generation in list(self._generations.values()):
            self._fail(generation, error)
        self._flush()

    def _step(self, batch: Batch) -> None:
        started = time.monotonic()
        # Works of one adapter are neighbours: a failing one is found in few halvings.
        works = sorted(batch.works, key=lambda work: id(work.sequence.lease))
        outcome = run_apart(
            works,
            lambda some: self._computed(batch.only(some), some),
            self._placement.make_room,
        )
        for work, error in errors_to_report(outcome, lambda work: work.sequence.lease).items():
            self._fail(self._generations[work.sequence], error)
        done = batch.only(outcome.results)
        self._deliver(done, outcome.results)
        self._flush()
        if done.works:
            seconds = time.monotonic() - started
            self._scheduler.observe(done, seconds)
            self._observer.on_step(stats_of(done, self._scheduler, seconds))
            self._observer.on_background(*self._scheduler.background.counts)

    def _computed(self, batch: Batch, works: Sequence[Work]) -> list[Sampled | None]:
        """Return each work's token; None for what has none, or went wrong."""
        tokens = self._engine.step(batch)
        sampling = (work for work in batch.works if work.samples)
        found = dict(zip(sampling, tokens, strict=True))
        return [found.get(work) for work in works]

    def _deliver(self, batch: Batch, tokens: Mapping[Work, Sampled | None]) -> None:
        """Advance the scheduler and send every sequence its token."""
        sampling = [work for work in batch.works if work.samples]
        self._scheduler.advance(batch, [tokens[work] or Sampled(0) for work in sampling])
        for work in sampling:
            sequence, token = work.sequence, tokens[work]
            generation = self._generations[sequence]
            if token is None:
                self._fail(generation, _without_token(sequence))
                continue
            if not sequence.is_background:
                self._time(generation)
            generation.sink(TokenEvent(token, sequence.finish_reason))
            if sequence.finish_reason:
                self._close(generation)

    def _time(self, generation: Generation) -> None:
        now, sequence = time.monotonic(), generation.sequence
        if sequence.num_generated == 1:
            waited = (sequence.admitted or now) - sequence.arrived
            generation.first_event_at = now
            self._observer.on_first_token(now - sequence.arrived, waited, sequence.adapter)
        else:
            self._observer.on_next_token(now - generation.last_event_at)
        generation.last_event_at = now

    def _accept(self, generations: Sequence[Generation]) -> None:
        for generation in generations:
            self._generations[generation.sequence] = generation
            self._observer.on_accepted(accepted(generation.sequence, generation.mode))
            self._scheduler.add(generation.sequence)

    def _withdraw(self, generations: Sequence[Generation]) -> None:
        """Close what was not accepted after all; none of it has run."""
        self._accept(generations)
        for generation in generations:
            self._close(generation)

    def _fail_unloadable(self) -> None:
        """Fail the waiting sequences whose adapter could not be loaded."""
        for sequence in self._scheduler.sequences:
            lease = sequence.lease
            if isinstance(lease, Entry) and lease.error is not None:
                self._fail(self._generations[sequence], lease.error)

    def _clear_memory(self) -> None:
        """End background sequences with an adapter where a live one's adapter finds no room."""
        if not self._placement.is_short_of_room:
            return
        if all(one.is_ready for one in self._scheduler.waiting):
            return
        for sequence in self._scheduler.background.sequences:
            if sequence.lease is not None:
                message = "the memory for adapters is wanted by other requests"
                self._fail(self._generations[sequence], Overloaded(message))

    def _fail_expired(self) -> None:
        for sequence in self._scheduler.expired(time.monotonic()):
            message = f"no end within the request's time; {sequence.num_generated} tokens were made"
            self._fail(self._generations[sequence], DeadlineExceeded(message))

    def _seconds_to_deadline(self) -> float | None:
        deadline = self._scheduler.next_deadline()
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    def _fail(self, generation: Generation, error: Exception) -> None:
        if not generation.is_over:
            generation.sink(FailedEvent(error))
            self._close(generation)

    def _close(self, generation: Generation) -> None:
        """Forget a generation and release its pages and its lease."""
        if generation.is_over:
            return
        generation.is_over = True
        self._scheduler.remove(generation.sequence)
        self._generations.pop(generation.sequence, None)
        if isinstance(generation.sequence.lease, Entry):
            self._placement.release(generation.sequence.lease)
        sequence = generation.sequence
        self._observer.on_ended(sequence.adapter, sequence.num_asked_for)
        if sequence.is_background:
            self._uncount_apart()
        else:
            self._on_generated(sequence.tenant, sequence.num_asked_for)
            self._uncount(sequence.tenant)


def _without_token(sequence: TokenSequence) -> Exception:
    """Return why a step has no token for a sequence."""
    if sequence.constraint is not None and sequence.constraint.fault is not None:
        return sequence.constraint.fault
    message = "the adapter's answer is not finite (NaN): its coefficients are too large"
    return InternalError(message)
