"""The loop: every accepted sequence ends in exactly one last event, whatever happens."""

import threading
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from torch import nn

import tiny
from adapters_core.base.spec import BaseSpec, spec_of
from adapters_core.format.write import write_adapter
from adapters_core.layers.inject import Injection, inject
from running import NUM_PAGES, Heard, Running
from server.engine.engine import Engine
from server.errors import DeadlineExceeded, Draining, InternalError, Overloaded
from server.generation.runtime import TokenEvent
from server.scheduling.step import Batch
from server_parts import (
    FOURIERFT,
    LORA,
    Store,
    eventually,
    torch_threads,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@pytest.fixture(scope="module")
def base() -> nn.Module:
    return tiny.model("llama", num_hidden_layers=1)


@pytest.fixture(scope="module")
def spec(base: nn.Module) -> BaseSpec:
    return spec_of(base, "tiny")


@pytest.fixture(scope="module")
def injection(base: nn.Module, spec: BaseSpec) -> Injection:
    return inject(base)


@pytest.fixture(scope="module")
def engine(injection: Injection) -> Engine:
    return Engine(injection, NUM_PAGES)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, spec: BaseSpec) -> Store:
    made = Store(tmp_path_factory.mktemp("blobs"), spec)
    for i in range(4):
        made.write(f"good{i}", (FOURIERFT, LORA)[i % 2], i)
    made.write("damaged", LORA, 9)
    file = made.open("damaged").file
    file.write_bytes(file.read_bytes()[:-4])
    return made


@pytest.fixture
def running(injection: Injection, engine: Engine, store: Store) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def build(**options: Any) -> Running:
        store.gates.clear()
        made.append(Running(injection, engine, store, **options))
        made[-1].runtime.start()
        return made[-1]

    yield build
    for one in made:
        one.engine.may_step.set()
        for gate in store.gates.values():
            gate.set()
        one.runtime.stop(timeout_s=0)
        one.loader.close()


def test_an_answer_is_its_tokens_with_a_reason_on_the_last(
    running: Callable[..., Running],
) -> None:
    r = running()
    heard = r.ask(10, max_tokens=5)
    assert len(heard.tokens()) == 5
    reasons = [event.finish_reason for event in heard.events if isinstance(event, TokenEvent)]
    assert reasons == [None] * 4 + ["length"]
    eventually(lambda: r.runtime.num_open == 0)
    r.check_all_given_back()


class Client:
    """Submits and cancels at random; remembers who was told what."""

    def __init__(self, running: Running, seed: int) -> None:
        self.r = running
        self.random = Random(seed)
        self.heards: list[Heard] = []
        self.cancelled: list[tuple[Heard, int]] = []
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        try:
            for _ in range(25):
                self.ask()
        except BaseException as error:
            self.failure = error

    def ask(self) -> None:
        random = self.random
        digest = random.choice([None, "good0", "good1", "good2", "missing", "damaged"])
        try:
            generation, heard = self.r.submit(random.randint(1, 90), random.randint(1, 6), digest)
        except Overloaded:
            self.r.settle()
            return
        if random.random() > 0.3:
            self.heards.append(heard)
            return
        for _ in range(random.randint(0, 2)):
            self.r.settle()
        self.r.runtime.cancel(generation)
        self.r.settle()
        self.cancelled.append((heard, len(heard.events)))


def test_random_submits_and_cancels_from_threads_all_end_once(
    running: Callable[..., Running],
) -> None:
    r = running(max_waiting=30, max_running=5)
    clients = [Client(r, seed) for seed in range(4)]
    for client in clients:
        client.thread.start()
    for client in clients:
        client.thread.join()
        assert client.failure is None
    eventually(lambda: r.runtime.num_open == 0)
    heards = [heard for client in clients for heard in client.heards]
    cancelled = [pair for client in clients for pair in client.cancelled]
    for heard in heards:
        assert heard.num_last == 1
        assert heard._is_last(heard.events[-1])
    for heard, told in cancelled:
        assert len(heard.events) == told, "told something after it was cancelled"
        assert heard.num_last <= 1
    assert len(heards) > 20
    assert len(cancelled) > 10
    r.check_all_given_back()


def test_a_failing_step_ends_what_makes_it_fail_and_the_loop_lives_on(
    running: Callable[..., Running],
) -> None:
    r = running()
    r.hold()
    r.engine.fails = lambda batch: any(len(w.sequence.prompt) == 13 for w in batch.works)
    gate = r.store.hold("good3")
    elsewhere = r.ask(6, digest="good3")  # not in the batch: its adapter is still loading
    at_fault, beside = r.ask(13), r.ask(7)
    r.engine.may_step.set()
    error = at_fault.error()
    assert isinstance(error, InternalError)
    assert "kernel" not in str(error), "tells of the inside"
    assert len(at_fault.events) == 1
    assert len(beside.tokens()) == 4
    gate.set()
    assert len(elsewhere.tokens()) == 4
    assert len(r.ask(7).tokens()) == 4
    assert r.runtime.is_alive
    eventually(lambda: r.runtime.num_open == 0)
    r.check_all_given_back()


@pytest.mark.parametrize("mode", ["factored", "merged"])
def test_an_adapter_whose_answer_is_not_finite_fails_alone(
    running: Callable[..., Running], store: Store, mode: str
) -> None:
    r = running(mode=mode)
    lengths = [40, 9, 33]
    asked = zip(lengths, (None, "good0", "good1"), strict=True)
    alone = [r.ask(n, digest=d).tokens() for n, d in asked]
    adapter = store.write("huge", LORA, 5)
    layers = {t: {k: v * 1e30 for k, v in layer.items()} for t, layer in adapter.layers.items()}
    write_adapter(store.root / "huge", LORA, layers, store.spec)
    r.hold()
    heards = [
        r.ask(n, digest=d) for n, d in [(40, None), (9, "good0"), (20, "huge"), (33, "good1")]
    ]
    eventually(lambda: bool(r.loader.memory.modes_of("huge")))
    r.engine.may_step.set()
    error = heards.pop(2).error()
    assert isinstance(error, InternalError)
    assert "not finite" in str(error)
    assert [heard.tokens() for heard in heards] == alone
    # Its pages go to others; nothing of it is left there.
    assert [r.ask(n, digest=d).tokens() for n, d in [(40, None), (9, "good0")]] == alone[:2]


def test_a_missing_adapter_fails_its_own_sequences(running: Callable[..., Running]) -> None:
    r = running()
    heards = [r.ask(5, digest=d) for d in ("missing", None, "missing", "damaged", "good0")]
    assert isinstance(heards[0].error(), FileNotFoundError)
    assert isinstance(heards[2].error(), FileNotFoundError)
    assert "damaged" not in str(heards[3].error())
    assert len(heards[1].tokens()) == len(heards[4].tokens()) == 4


def test_an_adapter_that_loads_holds_up_nobody(running: Callable[..., Running]) -> None:
    r = running(max_running=1)
    gate = r.store.hold("good2")
    slow = r.ask(5, digest="good2")
    assert len(r.ask(5).tokens()) == 4
    assert len(r.ask(5, digest="good1").tokens()) == 4
    assert not slow.events
    gate.set()
    assert len(slow.tokens()) == 4


def test_all_waiters_of_one_adapter_share_one_load(running: Callable[..., Running]) -> None:
    r = running()
    gate, before = r.store.hold("good3"), r.store.opened.count("good3")
    heards = [r.ask(n, digest="good3") for n in (3, 5, 7)]
    gate.set()
    assert all(len(heard.tokens()) == 4 for heard in heards)
    assert r.store.opened.count("good3") == before + 1


def test_a_full_queue_refuses_and_takes_again_later(running: Callable[..., Running]) -> None:
    r = running(max_waiting=1, max_running=2)
    r.engine.may_step.clear()
    heards = [r.ask(5) for _ in range(3)]
    with pytest.raises(Overloaded):
        r.ask(5)
    r.engine.may_step.set()
    assert all(len(heard.tokens()) == 4 for heard in heards)
    eventually(lambda: r.runtime.num_open == 0)
    assert len(r.ask(5).tokens()) == 4


def test_sequences_submitted_together_begin_in_one_step(running: Callable[..., Running]) -> None:
    r = running()
    digests = [None, "good0", "good1", "good0"]
    for digest in digests:
        r.ask(2, digest=digest).tokens()
    r.settle()
    r.observer.steps.clear()
    for heard in r.ask_all([(5, digest) for digest in digests]):
        assert len(heard.tokens()) == 4
    r.settle()
    assert [stats.num_running for stats in r.observer.steps[:3]] == [4, 4, 4]
    assert len(r.observer.steps) == 4


def test_sequences_of_one_adapter_submitted_together_have_one_mode(
    running: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    r = running()
    forced = iter(["factored", "merged"])
    place = r.runtime._placement._force
    monkeypatch.setattr(
        r.runtime._placement, "_force", lambda digest, mode: place(digest, next(forced))
    )
    heards = r.ask_all([(5, "good0"), (5, "good0")])
    assert [len(heard.tokens()) for heard in heards] == [4, 4]
    assert r.loader.memory.modes_of("good0") == ["factored"]


def test_of_sequences_submitted_together_all_are_accepted_or_none(
    running: Callable[..., Running],
) -> None:
    r = running(max_waiting=1, max_running=2)
    r.engine.may_step.clear()
    heard = r.ask(5)
    with pytest.raises(Overloaded):
        r.ask_all([(5, None), (5, "good0"), (5, None)])
    r.engine.may_step.set()
    assert len(heard.tokens()) == 4
    eventually(lambda: r.runtime.num_open == 0)
    assert all(len(h.tokens()) == 4 for h in r.ask_all([(5, None), (5, "good0"), (5, None)]))
    r.settle()
    r.check_all_given_back()


def test_each_tenant_has_a_queue_of_its_own(running: Callable[..., Running]) -> None:
    r = running(max_waiting=1, max_running=2)
    r.engine.may_step.clear()
    heards = [r.ask(5, tenant="flood") for _ in range(3)]
    with pytest.raises(Overloaded):
        r.ask(5, tenant="flood")
    heards.append(r.ask(5, tenant="other"))
    r.engine.may_step.set()
    assert all(len(heard.tokens()) == 4 for heard in heards)


def test_what_has_no_end_by_its_deadline_fails_and_gives_back(
    running: Callable[..., Running],
) -> None:
    r = running()
    r.store.hold("good2")
    waits = r.ask(5, digest="good2", timeout_s=0.05)
    assert isinstance(waits.error(), DeadlineExceeded)
    heard = r.ask(5, max_tokens=900, timeout_s=0.2)
    assert isinstance(heard.error(), DeadlineExceeded)
    assert "tokens were made" in str(heard.error())
    assert len(r.ask(5, timeout_s=60.0).tokens()) == 4
    r.store.gates["good2"].set()
    eventually(lambda: r.runtime.num_open == 0)
    eventually(
        lambda: all(e.users == 0 for e in r.loader.memory._caches["factored"].entries.values())
    )
    r.check_all_given_back()


def test_a_place_is_given_back_when_nothing_came_of_it(
    running: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    r = running()

    def fails(*args: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(r.loader, "acquire", fails)
    with pytest.raises(RuntimeError, match="new thread"):
        r.ask(5, digest="good0")
    assert r.runtime.num_open == 0


def test_draining_takes_nothing_new_and_ends_what_is_open(
    running: Callable[..., Running],
) -> None:
    r = running()
    r.engine.may_step.clear()
    heard = r.ask(5)
    r.runtime.drain()
    with pytest.raises(Draining):
        r.ask(5)
    r.engine.may_step.set()
    assert len(heard.tokens()) == 4


def test_stop_lets_open_generations_end(running: Callable[..., Running]) -> None:
    r = running()
    heards = [r.ask(n) for n in (5, 60, 90)]
    r.runtime.stop()
    assert not r.runtime.is_alive
    assert [heard.num_last for heard in heards] == [1, 1, 1]
    assert all(len(heard.tokens()) == 4 for heard in heards)


def test_stop_without_patience_fails_what_is_open(running: Callable[..., Running]) -> None:
    r = running()
    gate = r.store.hold("good3")
    heards = [r.ask(5, digest="good3"), r.ask(5, max_tokens=200), r.ask(5, max_tokens=200)]
    r.runtime.stop(timeout_s=0)
    assert not r.runtime.is_alive
    assert [heard.num_last for heard in heards] == [1, 1, 1]
    assert all(isinstance(heard.error(), Draining) for heard in heards)
    r.check_all_given_back()
    gate.set()


def test_a_submit_that_meets_the_end_is_answered_too(
    running: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has passed the gate, and the loop stops before it is handed over."""
    r, inside, go_on, heards = running(), threading.Event(), threading.Event(), []
    acquire = r.loader.acquire

    def slow(*args: Any) -> Any:
        inside.set()
        assert go_on.wait(30)
        return acquire(*args)

    monkeypatch.setattr(r.loader, "acquire", slow)
    client = threading.Thread(target=lambda: heards.append(r.ask(5, digest="good0")))
    client.start()
    assert inside.wait(30)
    stopper = threading.Thread(target=lambda: r.runtime.stop(timeout_s=0))
    stopper.start()
    eventually(lambda: r.runtime._stopping)
    stopper.join(0.05)
    go_on.set()
    client.join()
    stopper.join()
    assert isinstance(heards[0].error(), Draining)
    r.check_all_given_back()


def test_if_the_loop_itself_dies_everybody_is_told(
    running: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    r = running()
    r.engine.may_step.clear()
    heards = [r.ask(5), r.ask(6)]

    def broken(batch: Batch, sampled: object) -> None:
        raise AssertionError("the books do not balance")

    monkeypatch.setattr(r.scheduler, "advance", broken)
    r.engine.may_step.set()
    assert all(heard.error() for heard in heards)
    assert [heard.num_last for heard in heards] == [1, 1]
    eventually(lambda: not r.runtime.is_alive)
    with pytest.raises(Draining):
        r.ask(5)


def test_cancelling_gives_pages_and_adapter_back(running: Callable[..., Running]) -> None:
    r = running()
    generation, heard = r.submit(30, max_tokens=500, digest="good0")
    eventually(lambda: len(heard.events) > 2)
    r.runtime.cancel(generation)
    r.runtime.cancel(generation)
    r.settle()
    told = len(heard.events)
    r.check_all_given_back()
    assert len(r.ask(4).tokens()) == 4
    assert len(heard.events) == told
    assert heard.num_last == 0


def test_steps_are_observed(running: Callable[..., Running]) -> None:
    r = running()
    blocker = r.hold()
    heards = [r.ask(50, digest="good0"), r.ask(5, digest="good1"), r.ask(3)]
    eventually(
        lambda: len(r.loader.memory.modes_of("good1") + r.loader.memory.modes_of("good0")) == 2
    )
    r.engine.may_step.set()
    for heard in [blocker, *heards]:
        heard.tokens()
    eventually(lambda: r.runtime.num_open == 0)
    r.settle()
    steps = r.observer.steps
    assert sum(stats.prompt_tokens for stats in steps) == 1 + 50 + 5 + 3
    assert sum(stats.generated_tokens for stats in steps) == 1 + 3 * 4
    assert {"base", "mixed"} <= {stats.mode for stats in steps}
    assert max(stats.num_adapters for stats in steps) == 2
    assert max(stats.num_rows for stats in steps) <= 40
    assert len(r.observer.first) == 4
    assert len(r.observer.gaps) == 9
    assert all(0 <= waited <= seconds for seconds, waited in r.observer.first)


@pytest.mark.parametrize("setting", ["factored", "merged"])
def test_a_generation_knows_its_mode(running: Callable[..., Running], setting: str) -> None:
    r = running(mode=setting)
    generation, heard = r.submit(5, digest="good0")
    assert generation.mode == setting
    heard.tokens()
    assert r.loader.memory.modes_of("good0") == [setting]
    assert r.submit(5)[0].mode is None


def test_the_observer_hears_when_nothing_runs_any_more(running: Callable[..., Running]) -> None:
    r = running()
    generation, _ = r.submit(5, max_tokens=900)
    eventually(lambda: bool(r.observer.steps))
    assert r.observer.steps[-1].num_running == 1
    r.runtime.cancel(generation)
    eventually(lambda: r.observer.queue == (0, 0))


def test_the_background_is_told_its_tokens_and_counts_for_no_tenant(
    running: Callable[..., Running],
) -> None:
    r = running(max_waiting=0, max_running=1)
    r.hold()
    low = [r.ask(4, max_tokens=3, is_background=True) for _ in range(4)]
    assert r.runtime.num_open == 5
    r.engine.may_step.set()
    assert [len(heard.tokens()) for heard in low] == [3] * 4
    eventually(lambda: r.runtime.num_open == 0)
    assert len(r.observer.first) == 1, "callers' latencies are those of live sequences"
    assert not r.observer.gaps
    r.check_all_given_back()


def test_the_background_waits_while_live_sequences_run(running: Callable[..., Running]) -> None:
    r = running()
    r.hold()
    low, live = r.ask(4, max_tokens=3, is_background=True), r.ask(4, max_tokens=20)
    r.engine.may_step.set()
    assert len(live.tokens()) == 20
    assert len(low.events) <= 1, "what a row costs is not known yet"
    assert len(low.tokens()) == 3


def test_the_background_is_ended_where_a_live_sequences_adapter_finds_no_room(
    running: Callable[..., Running],
) -> None:
    r = running()
    r.store.hold("good1")
    low = r.ask(4, max_tokens=400, digest="good0", is_background=True)
    base = r.ask(4, max_tokens=400, is_background=True)
    eventually(lambda: len(low.events) > 2)
    r.engine.may_step.clear()
    live = r.ask(4, max_tokens=2, digest="good1")
    r.loader.memory._num_waiting = 1  # as while a load waits for room
    r.engine.may_step.set()
    assert isinstance(low.error(), Overloaded)
    r.loader.memory._num_waiting = 0
    r.store.gates["good1"].set()
    assert len(live.tokens()) == 2
    assert len(base.tokens()) == 400, "the base alone holds no adapter"
