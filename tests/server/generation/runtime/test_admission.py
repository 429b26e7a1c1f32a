"""What is taken and in which order: queues, tenants, deadlines, and the background."""

from collections.abc import Callable

import pytest

from running import Running
from server.adapters.modes import Mode
from server.adapters.residency import Entry
from server.errors import DeadlineExceeded, Overloaded
from server_parts import eventually


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


def test_a_sequence_has_arrived_before_its_adapter_is_loaded(
    running: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    r = running()
    acquire = r.loader.acquire

    def acquired(digest: str, mode: Mode) -> Entry:
        """Return a lease after its load, as if the caller's thread had waited for its turn."""
        entry = acquire(digest, mode)
        eventually(lambda: entry.is_ready)
        return entry

    monkeypatch.setattr(r.loader, "acquire", acquired)
    generation, heard = r.submit(5, digest="good3")
    assert len(heard.tokens()) == 4
    sequence = generation.sequence
    assert isinstance(sequence.lease, Entry)
    assert sequence.lease.ready_at is not None
    assert sequence.arrived < sequence.lease.ready_at


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
    assert len(low.tokens()) == 3
    beside = [at for at in low.times if at < live.times[-1]]
    assert len(beside) <= 1, "what a row costs is not known yet"


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
