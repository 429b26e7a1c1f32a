"""Every accepted sequence ends in exactly one last event, whatever fails."""

import threading
from collections.abc import Callable
from random import Random

import pytest

from adapters_core.format.write import write_adapter
from running import Heard, Running
from server.errors import InternalError, Overloaded
from server.generation.runtime import TokenEvent
from server_parts import LORA, Store, eventually


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
    """Submits and cancels at random; remembers what each was told."""

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


def test_it_is_idle_while_nothing_can_run_and_not_while_a_step_runs(
    running: Callable[..., Running],
) -> None:
    r = running()
    eventually(lambda: r.runtime.is_idle)
    r.engine.may_step.clear()
    heard = r.ask(5)
    assert r.engine.is_held.wait(30)
    assert not r.runtime.is_idle
    r.engine.may_step.set()
    heard.tokens()
    gate = r.store.hold("good2")
    waiting = r.ask(5, digest="good2")  # it is open, but there is nothing to compute
    eventually(lambda: r.runtime.is_idle)
    assert not waiting.events
    gate.set()
    waiting.tokens()


def test_all_waiters_of_one_adapter_share_one_load(running: Callable[..., Running]) -> None:
    r = running()
    gate, before = r.store.hold("good3"), r.store.opened.count("good3")
    heards = [r.ask(n, digest="good3") for n in (3, 5, 7)]
    gate.set()
    assert all(len(heard.tokens()) == 4 for heard in heards)
    assert r.store.opened.count("good3") == before + 1


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
