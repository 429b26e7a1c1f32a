"""A runtime over a tiny base; its steps can be held up or made to fail, its events collected."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import Injection
from server.adapters.loader import Loader
from server.adapters.memory import Capacities
from server.base.resident import ResidentBase
from server.engine.engine import Engine
from server.generation.runtime import (
    Event,
    FailedEvent,
    Generation,
    Runtime,
    SequenceRequest,
    TokenEvent,
)
from server.planning.placement import Placement
from server.scheduling.page_pool import PagePool
from server.scheduling.scheduler import Scheduler
from server.scheduling.sequence import Sampled
from server.scheduling.step import Batch
from server.telemetry.observer import Observer, StepStats
from server_parts import CPU, PAGE_SIZE, Store, greedy, prompt_of

NUM_PAGES = 30


@dataclass
class Heard:
    """What one sequence was told, and when."""

    events: list[Event] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.times.append(time.perf_counter())
        if self._is_last(event):
            self.over.set()

    @staticmethod
    def _is_last(event: Event) -> bool:
        return isinstance(event, FailedEvent) or event.finish_reason is not None

    @property
    def num_last(self) -> int:
        return sum(map(self._is_last, self.events))

    def tokens(self) -> list[int]:
        """Return the tokens once all are told."""
        assert self.over.wait(30), "it never ended"
        assert all(isinstance(event, TokenEvent) for event in self.events), self.events
        return [e.sampled.token for e in self.events if isinstance(e, TokenEvent)]

    def error(self) -> Exception:
        """Return what it failed with."""
        assert self.over.wait(30), "it never ended"
        last = self.events[-1]
        assert isinstance(last, FailedEvent)
        return last.error


@dataclass
class Watched:
    """An engine whose steps can be held up or made to fail."""

    engine: Engine
    fails: Callable[[Batch], bool] = lambda batch: False
    may_step: threading.Event = field(default_factory=threading.Event)
    is_held: threading.Event = field(default_factory=threading.Event)

    @property
    def border(self) -> int | None:
        return self.engine.border

    def prepare(self, most_rows: int) -> None:
        self.engine.prepare(most_rows)

    def step(self, batch: Batch) -> list[Sampled | None]:
        if not self.may_step.is_set():
            self.is_held.set()
        assert self.may_step.wait(30)
        if self.fails(batch):
            raise RuntimeError("a kernel failed")
        return self.engine.step(batch)


@dataclass
class Steps(Observer):
    """Keeps what it was told of steps and tokens."""

    steps: list[StepStats] = field(default_factory=list)
    first: list[tuple[float, float]] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    queue: tuple[int, int] | None = None

    def on_queue(self, num_running: int, num_waiting: int) -> None:
        self.queue = (num_running, num_waiting)

    def on_step(self, stats: StepStats) -> None:
        self.steps.append(stats)

    def on_first_token(self, seconds: float, queue_s: float, adapter: str = "") -> None:
        self.first.append((seconds, queue_s))

    def on_next_token(self, seconds: float) -> None:
        self.gaps.append(seconds)


class Running:
    """A runtime over a tiny base, with a folder of adapters, started."""

    def __init__(
        self,
        injection: Injection,
        engine: Engine,
        store: Store,
        max_waiting: int = 100,
        max_running: int = 8,
        mode: Any = "factored",
    ) -> None:
        self.store, self.observer = store, Steps()
        self.pool = PagePool(NUM_PAGES, PAGE_SIZE)
        self.scheduler = Scheduler(self.pool, 40, max_running)
        self.engine = Watched(engine)
        self.engine.may_step.set()
        self.loader = Loader(
            store.open,
            ResidentBase(store.spec, injection, BasisCache(CPU)),
            Capacities(1 << 20, 1 << 30, 1 << 20),
            self.observer,
            lambda entry: self.runtime.wake(),
        )
        faulty: Any = self.engine
        self.runtime = Runtime(
            faulty, self.scheduler, Placement(self.loader, mode), self.observer, max_waiting
        )

    def submit(
        self, length: int, max_tokens: int = 4, digest: str | None = None, **options: Any
    ) -> tuple[Generation, Heard]:
        heard = Heard()
        prompt = prompt_of(length, length)
        request = SequenceRequest(prompt, greedy(max_tokens), digest, **options)
        generation = self.runtime.submit(request, heard)
        return generation, heard

    def ask(
        self, length: int, max_tokens: int = 4, digest: str | None = None, **options: Any
    ) -> Heard:
        return self.submit(length, max_tokens, digest, **options)[1]

    def ask_all(self, asked: Sequence[tuple[int, str | None]]) -> list[Heard]:
        """Submit sequences together, each of a length and a digest."""
        heards = [Heard() for _ in asked]
        requests = [
            SequenceRequest(prompt_of(length, length), greedy(4), digest)
            for length, digest in asked
        ]
        self.runtime.submit_all(list(zip(requests, heards, strict=True)))
        return heards

    def hold(self) -> Heard:
        """Stop the loop in a step of one short sequence, so that what comes next is one batch."""
        self.engine.may_step.clear()
        heard = self.ask(1, max_tokens=1)
        assert self.engine.is_held.wait(30)
        return heard

    def settle(self) -> None:
        """Wait until the loop has done everything that was posted so far."""
        done = threading.Event()
        self.runtime._post(done.set)
        assert done.wait(30)

    def check_all_given_back(self) -> None:
        assert self.runtime.num_open == 0
        assert self.scheduler._pages.num_available == NUM_PAGES
        self.scheduler.check_integrity()
        assert not self.scheduler.running
        assert not self.scheduler.waiting
        assert not self.runtime._generations
        for cache in self.loader.memory._caches.values():
            cache.check_integrity()
            assert all(entry.users == 0 for entry in cache.entries.values())
