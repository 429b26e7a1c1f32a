"""The thread that collects inputs of any adapters into batches and answers them.

Every accepted request ends once: with all its results, with an error, or cancelled. An adapter
that is not in memory loads while others go on.
"""

import time
from collections.abc import Sequence

from torch import Tensor

from server.adapters.faults import errors_to_report, run_apart
from server.adapters.loader import Loader
from server.encoding.batch_queue import BatchQueue, QueuedInput
from server.encoding.encoder import Encoder, Group, Input, group_of, num_tokens
from server.encoding.request import Limits, Part, PendingRequest
from server.errors import DeadlineExceeded, Draining, InternalError, Overloaded
from server.scheduling.admission import OpenRequests
from server.scheduling.batch_thread import BatchThread
from server.telemetry.observer import Observer, OpenSequences, ServingLoad, StepStats


class Batcher(BatchThread):
    """Owns the queue of inputs; its state changes on the batcher's thread.

    Args:
        encoder: what computes a batch.
        loader: where adapters' leases come from.
        observer: receives the statistics of every batch.
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
        pads: bool = True,
    ) -> None:
        super().__init__("overtone-encoder", OpenRequests(limits.max_open, "inputs"))
        self._encoder = encoder
        self._loader = loader
        self._observer = observer
        self._mode = limits.mode
        self._max_length = max_length
        self._max_batch = limits.max_batch
        self._pads = pads
        self._queue: BatchQueue[Part] = BatchQueue(limits.max_batch, limits.max_tokens)
        self._background: BatchQueue[Part] = BatchQueue(limits.max_batch, limits.max_tokens)
        self._pending: dict[PendingRequest, None] = {}

    def submit(
        self,
        inputs: Sequence[Input],
        digest: str | None,
        tenant: str = "",
        timeout_s: float | None = None,
        goes_alone: bool = False,
        is_background: bool = False,
    ) -> PendingRequest:
        """Accept all inputs for the adapter `digest` (None: the base), or none; from any thread.

        Args:
            inputs: of one request.
            digest: of the adapter.
            tenant: that it belongs to; tenants take turns.
            timeout_s: from now on; a request that is not answered by then fails.
            goes_alone: whether the adapter changes what all inputs of a batch share.
            is_background: it is computed while nothing else is ready, and may be ended with
                `Overloaded` for others: it can be sent again. Not counted as the tenant's.

        Raises:
            Overloaded: too many of the tenant's inputs are open.
            Draining: the server is going down.
        """
        size = len(inputs)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._counted_apart(size) if is_background else self._counted(tenant, size):
            lease = self._loader.acquire(digest, self._mode) if digest else None
        mode = self._mode if digest else None
        request = PendingRequest(tenant, deadline, mode, lease, [None] * size)
        request.is_background = is_background
        for number, given in enumerate(inputs):
            owner = digest if goes_alone else None
            group = group_of(given, self._max_length, self._pads, owner)
            part = Part(request, number, given)
            request.queued.append(QueuedInput(part, group, max(1, group.length), tenant))
        self._post(lambda: self._accept(request))
        return request

    def cancel(self, request: PendingRequest) -> None:
        """Drop the inputs of a request that are not computed; nothing happens if it is over."""
        self._post(lambda: self._close(request))

    def load(self) -> ServingLoad:
        """Return what there is to do now; safe from any thread.

        Adapters are not among it: inputs are answered in one pass, so none stays in use.
        """
        return ServingLoad(frozenset(), frozenset(), 0, len(self._queue), 0.0, self._max_batch)

    def open_sequences(self) -> dict[str, OpenSequences]:
        """Return none: inputs are answered in one pass."""
        return {}

    def _turn(self) -> None:
        """Answer one batch, or wait until there is something to do."""
        self._read_inbox()
        self._fail_lost()
        self._clear_memory()
        batch = self._queue.next(_is_ready) or self._background.next(_is_ready)
        self._observer.on_background(0, len(self._background))
        if batch:
            self._answer([entry.item for entry in batch], batch[0].group)
        else:
            self._observer.on_queue(0, len(self._queue))
            self._wait(self._seconds_to_deadline())

    def _answer(self, parts: list[Part], group: object) -> None:
        assert isinstance(group, Group)
        started = time.monotonic()
        # Inputs of one adapter are neighbours: a failing one is found in few halvings.
        ordered = sorted(parts, key=lambda part: id(part.request.lease))
        outcome = run_apart(
            ordered, lambda some: self._computed(some, group), self._loader.memory.make_room
        )
        for part, error in errors_to_report(outcome, lambda part: part.request.lease).items():
            self._close(part.request, error)
        done = [part for part in parts if part in outcome.results]
        for part in done:
            self._tell(part, outcome.results[part])
        if done:
            self._observer.on_step(self._stats(done, time.monotonic() - started))

    def _computed(self, parts: Sequence[Part], group: Group) -> list[Tensor]:
        leases = [part.request.lease for part in parts]
        payloads = [lease.payload if lease else None for lease in leases]
        return self._encoder.run([part.given for part in parts], group, payloads)

    def _tell(self, part: Part, result: Tensor) -> None:
        request = part.request
        if request.is_over:
            return
        if not bool(result.isfinite().all()):
            error = "the answer is not finite (NaN): the adapter's coefficients are too large"
            self._close(request, InternalError(error))
            return
        request.results[part.number] = result
        if all(known is not None for known in request.results):
            self._close(request)

    def _stats(self, parts: list[Part], seconds: float) -> StepStats:
        modes = {part.request.mode or "base" for part in parts}
        leases = {part.request.lease for part in parts}
        count = sum(num_tokens(part.given) for part in parts)
        return StepStats(
            seconds=seconds,
            mode=modes.pop() if len(modes) == 1 else "mixed",
            num_rows=count or len(parts),
            num_adapters=len(leases - {None}),
            num_running=len(parts),
            num_waiting=len(self._queue),
            prompt_tokens=count,
            generated_tokens=0,
        )

    def _accept(self, request: PendingRequest) -> None:
        self._pending[request] = None
        self._queue_of(request).add(request.queued)
        if not request.results:
            self._close(request)

    def _fail_lost(self) -> None:
        """End requests with an adapter that cannot be loaded, or past their deadline."""
        now = time.monotonic()
        for request in list(self._pending):
            if request.lease is not None and request.lease.error is not None:
                self._close(request, request.lease.error)
            elif request.deadline is not None and request.deadline <= now:
                done = sum(known is not None for known in request.results)
                message = f"no end within the request's time; {done} of {len(request.results)} "
                self._close(request, DeadlineExceeded(message + "inputs were answered"))

    def _clear_memory(self) -> None:
        """End background requests with an adapter where a live one's finds no room."""
        if not self._loader.memory.is_short_of_room:
            return
        pending = list(self._pending)
        if all(one.is_ready for one in pending if not one.is_background):
            return
        for request in pending:
            if request.is_background and request.lease is not None:
                message = "the memory for adapters is wanted by other requests"
                self._close(request, Overloaded(message))

    def _queue_of(self, request: PendingRequest) -> BatchQueue[Part]:
        return self._background if request.is_background else self._queue

    def _seconds_to_deadline(self) -> float | None:
        deadlines = [one.deadline for one in self._pending if one.deadline is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _close(self, request: PendingRequest, error: Exception | None = None) -> None:
        """End a request once: with all its results, with an error, or cancelled."""
        if request.is_over:
            return
        request.is_over = True
        self._pending.pop(request, None)
        for entry in request.queued:
            self._queue_of(request).remove(entry)
        if request.lease is not None:
            self._loader.release(request.lease)
        if request.is_background:
            self._uncount_apart(len(request.results))
        else:
            self._uncount(request.tenant, len(request.results))
        results = [known for known in request.results if known is not None]
        if not request.future.set_running_or_notify_cancel():
            return
        if error is not None:
            request.future.set_exception(error)
        elif len(results) < len(request.results):
            request.future.set_exception(Draining("the request was given up"))
        else:
            request.future.set_result(results)

    def _end_accepted(self, error: Exception) -> None:
        for request in list(self._pending):
            self._close(request, error)


def _is_ready(part: Part) -> bool:
    return part.request.is_ready
