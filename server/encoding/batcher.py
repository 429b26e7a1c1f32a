"""The thread that collects inputs of any adapters into batches and answers them.

Every accepted request ends once: with all its results, with an error, or cancelled. An adapter
that is not in memory loads while others go on.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from torch import Tensor

from server.adapters.faults import run_apart, told_of
from server.adapters.loader import Loader
from server.encoding.batch_queue import Line, Waiting
from server.encoding.encoder import Encoder, Group, Input, group_of
from server.encoding.request import Limits, Part, Ticket
from server.errors import DeadlineExceeded, Draining, InternalError
from server.scheduling.admission import Open
from server.telemetry.observer import Observer, StepStats

_LOG = logging.getLogger("overtone.encoding")


class Batcher:
    """Owns the line; its state changes on the batcher's thread.

    Args:
        encoder, loader, observer: what computes, what brings adapters, what is told.
        limits: how much at once.
        max_length: of a text, in tokens.
        pads: whether padding changes no answer of the base.
    """

    def __init__(
        self,
        encoder: Encoder,
        loader: Loader,
        observer: Observer,
        limits: Limits,
        max_length: int,
        clock: Callable[[], float] = time.monotonic,
        pads: bool = True,
    ) -> None:
        self._pads = pads
        self._encoder = encoder
        self._loader = loader
        self._observer = observer
        self._mode = limits.mode
        self._max_length = max_length
        self._clock = clock
        self._line: Line[Part] = Line(limits.max_batch, limits.max_tokens)
        self._inbox: deque[Callable[[], None]] = deque()
        self._tickets: dict[Ticket, None] = {}
        self._open = Open(limits.max_open, "inputs")
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._draining = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="overtone-encoder", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(
        self,
        inputs: Sequence[Input],
        digest: str | None,
        tenant: str = "",
        timeout_s: float | None = None,
        goes_alone: bool = False,
    ) -> Ticket:
        """Accept all inputs for the adapter `digest` (None: the base), or none; from any thread.

        Args:
            inputs: of one request.
            digest: of the adapter.
            tenant: whose request it is; tenants take turns.
            timeout_s: from now on; a request that is not answered by then fails.
            goes_alone: whether the adapter changes what all inputs of a batch share.

        Raises:
            Overloaded: too many of the tenant's inputs are open.
            Draining: the server is going down.
        """
        with self._lock:
            if self._draining:
                raise Draining("the server is going down; send the request to another one")
            self._open.begin(tenant, self._clock(), len(inputs))
        try:
            lease = self._loader.acquire(digest, self._mode) if digest else None
        except Exception:
            self._forget(tenant, len(inputs))
            raise
        mode = self._mode if digest else None
        deadline = None if timeout_s is None else self._clock() + timeout_s
        ticket = Ticket(tenant, deadline, mode, lease, [None] * len(inputs))
        for number, given in enumerate(inputs):
            owner = digest if goes_alone else None
            group = group_of(given, self._max_length, self._pads, owner)
            part = Part(ticket, number, given)
            ticket.waiting.append(Waiting(part, group, max(1, group.length), tenant))
        self._post(lambda: self._accept(ticket))
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Give up what of a request is not computed; nothing happens if it is over."""
        self._post(lambda: self._close(ticket))

    def wake(self) -> None:
        """Look for work again: an adapter has become ready or has failed."""
        self._wake.set()

    def drain(self) -> None:
        """Take nothing new; what is open goes on."""
        with self._lock:
            self._draining = True

    def stop(self, timeout_s: float = 30.0) -> None:
        """Drain, let open requests end for up to `timeout_s`, fail the rest, end the thread."""
        self.drain()
        deadline = self._clock() + timeout_s
        while self.num_open and self._clock() < deadline and self._thread.is_alive():
            self._thread.join(0.02)
        self._stopping = True
        self._wake.set()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    @property
    def num_open(self) -> int:
        """Return how many inputs were accepted and are not answered."""
        return self._open.total

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        except Exception:
            _LOG.exception("the batcher has died")
        finally:
            self.drain()
            self._end_all()

    def _turn(self) -> None:
        """Answer one batch, or wait until there is something to do."""
        self._wake.clear()
        while self._inbox:
            self._inbox.popleft()()
        self._fail_lost()
        batch = self._line.next(lambda part: part.ticket.is_ready)
        if batch:
            self._answer([entry.item for entry in batch], batch[0].group)
        else:
            self._observer.on_queue(0, len(self._line))
            self._wake.wait(self._seconds_to_deadline())

    def _answer(self, parts: list[Part], group: object) -> None:
        assert isinstance(group, Group)
        started = self._clock()
        # Those of one adapter side by side: one that fails is found in few halvings.
        ordered = sorted(parts, key=lambda part: id(part.ticket.lease))
        outcome = run_apart(ordered, lambda some: self._computed(some, group))
        for part, error in told_of(outcome, lambda part: part.ticket.lease).items():
            self._close(part.ticket, error)
        done = [part for part in parts if part in outcome.results]
        for part in done:
            self._tell(part, outcome.results[part])
        if done:
            self._observer.on_step(self._stats(done, self._clock() - started))

    def _computed(self, parts: Sequence[Part], group: Group) -> list[Tensor]:
        leases = [part.ticket.lease for part in parts]
        payloads = [lease.payload if lease else None for lease in leases]
        return self._encoder.run([part.given for part in parts], group, payloads)

    def _tell(self, part: Part, result: Tensor) -> None:
        ticket = part.ticket
        if ticket.is_over:
            return
        if not bool(result.isfinite().all()):
            error = "the answer is not finite (NaN): the adapter's coefficients are too large"
            self._close(ticket, InternalError(error))
            return
        ticket.results[part.number] = result
        if all(known is not None for known in ticket.results):
            self._close(ticket)

    def _stats(self, parts: list[Part], seconds: float) -> StepStats:
        modes = {part.ticket.mode or "base" for part in parts}
        leases = {part.ticket.lease for part in parts}
        num_tokens = sum(len(p.given) for p in parts if isinstance(p.given, tuple))
        return StepStats(
            seconds=seconds,
            mode=modes.pop() if len(modes) == 1 else "mixed",
            num_rows=num_tokens or len(parts),
            num_adapters=len(leases - {None}),
            num_running=len(parts),
            num_waiting=len(self._line),
            prompt_tokens=num_tokens,
            generated_tokens=0,
        )

    def _accept(self, ticket: Ticket) -> None:
        self._tickets[ticket] = None
        self._line.add(ticket.waiting)
        if not ticket.results:
            self._close(ticket)

    def _fail_lost(self) -> None:
        """End requests whose adapter cannot be loaded, or whose time is over."""
        now = self._clock()
        for ticket in list(self._tickets):
            if ticket.lease is not None and ticket.lease.error is not None:
                self._close(ticket, ticket.lease.error)
            elif ticket.deadline is not None and ticket.deadline <= now:
                done = sum(known is not None for known in ticket.results)
                message = f"no end within the request's time; {done} of {len(ticket.results)} "
                self._close(ticket, DeadlineExceeded(message + "inputs were answered"))

    def _seconds_to_deadline(self) -> float | None:
        deadlines = [one.deadline for one in self._tickets if one.deadline is not None]
        return max(0.0, min(deadlines) - self._clock()) if deadlines else None

    def _close(self, ticket: Ticket, error: Exception | None = None) -> None:
        """End a request: with what is there, with an error, or cancelled; once."""
        if ticket.is_over:
            return
        ticket.is_over = True
        self._tickets.pop(ticket, None)
        for entry in ticket.waiting:
            self._line.remove(entry)
        if ticket.lease is not None:
            self._loader.release(ticket.lease)
        self._forget(ticket.tenant, len(ticket.results))
        results = [known for known in ticket.results if known is not None]
        if not ticket.future.set_running_or_notify_cancel():
            return
        if error is not None:
            ticket.future.set_exception(error)
        elif len(results) < len(ticket.results):
            ticket.future.set_exception(Draining("the request was given up"))
        else:
            ticket.future.set_result(results)

    def _end_all(self) -> None:
        """Fail what is open; what was counted as open may still be on its way to the inbox."""
        while self.num_open:
            self._wake.clear()
            while self._inbox:
                self._inbox.popleft()()
            for ticket in list(self._tickets):
                self._close(ticket, Draining("the server went down"))
            if self.num_open:
                self._wake.wait()

    def _forget(self, tenant: str, count: int) -> None:
        with self._lock:
            self._open.end(tenant, self._clock(), count)

    def _post(self, action: Callable[[], None]) -> None:
        self._inbox.append(action)
        self._wake.set()
