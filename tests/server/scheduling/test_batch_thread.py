"""The thread of engine and encoder: what was counted as open is over when it has ended."""

import threading
from collections.abc import Callable

import pytest

from server.errors import Draining, Overloaded
from server.scheduling.admission import OpenRequests
from server.scheduling.batch_thread import BatchThread
from server_parts import eventually


class Counting(BatchThread):
    """Accepts numbers; one turn does nothing but read the inbox."""

    def __init__(self, begin: Callable[[], None] = lambda: None) -> None:
        super().__init__("counting", OpenRequests(2, "numbers"), begin)
        self.accepted: list[int] = []
        self.ended: list[Exception] = []

    def accept(self, number: int, may_go_on: threading.Event | None = None) -> None:
        with self._counted("tenant"):
            assert may_go_on is None or may_go_on.wait(30)
            if number < 0:
                raise ValueError(number)
        self._post(lambda: self.accepted.append(number))

    def _turn(self) -> None:
        self._read_inbox()
        self._wake.wait()

    def _end_accepted(self, error: Exception) -> None:
        for _ in self.accepted:
            self._uncount("tenant")
            self.ended.append(error)
        self.accepted = []


@pytest.mark.parametrize("number", [1, -1])
def test_the_end_waits_for_a_request_that_is_being_accepted(number: int) -> None:
    thread, go_on, failed = Counting(), threading.Event(), []
    thread.start()

    def client() -> None:
        try:
            thread.accept(number, go_on)
        except ValueError as error:
            failed.append(error)

    clients = [threading.Thread(target=client)]
    clients[0].start()
    eventually(lambda: thread.num_open == 1)
    clients.append(threading.Thread(target=lambda: thread.stop(timeout_s=0)))
    clients[1].start()
    eventually(lambda: thread._stopping and not thread._wake.is_set())
    go_on.set()
    for one in clients:
        one.join(30)
        assert not one.is_alive()
    assert thread.num_open == 0
    assert [len(thread.ended), len(failed)] == ([1, 0] if number > 0 else [0, 1])


def test_a_request_that_is_refused_is_not_counted() -> None:
    thread = Counting()
    with pytest.raises(ValueError, match="-1"):
        thread.accept(-1)
    thread.accept(1)
    thread.accept(2)
    with pytest.raises(Overloaded):
        thread.accept(3)
    thread.drain()
    with pytest.raises(Draining):
        thread.accept(4)
    assert thread.num_open == 2


def test_it_has_begun_when_start_returns() -> None:
    began: list[str] = []
    thread = Counting(lambda: began.append(threading.current_thread().name))
    thread.start()
    assert began == ["counting"]
    thread.stop()


def test_one_that_cannot_begin_is_not_alive(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("no memory")

    thread = Counting(fail)
    thread.start()
    eventually(lambda: not thread.is_alive)
    assert "no memory" in caplog.text
