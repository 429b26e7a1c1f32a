"""The end of a loop: open sequences end or are told, and nothing new is taken."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from running import Running
from server.errors import Draining
from server.scheduling.step import Batch
from server_parts import eventually


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
