"""A job's process says that it gets on, and its worker counts how long it says nothing."""

import os
import threading
from collections.abc import Iterator

import pytest

from jobs_made import spec_for
from registry.common.fence import Fence
from trainer.job.reporting import Reporting
from trainer.process.heartbeat import Heartbeat, HeartbeatMonitor


class Clock:
    """Seconds that a test moves on."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    os.close(ends[1])


def later(clock: Clock, silence: HeartbeatMonitor, seconds: int) -> float:
    """Listen as a worker does, every second, and return how long nothing was heard."""
    for _ in range(seconds):
        clock.now += 1.0
        silence.listen()
    return silence.seconds


def test_a_silence_grows_until_something_is_said(pipe: tuple[int, int]) -> None:
    clock = Clock()
    silence, heartbeat = HeartbeatMonitor(pipe[0], clock), Heartbeat(pipe[1], clock)
    assert later(clock, silence, 40) == 40
    heartbeat()
    assert later(clock, silence, 1) == 0
    assert later(clock, silence, 5) == 5
    silence.close()
    silence.close()


def test_a_worker_that_was_away_has_heard_no_silence(pipe: tuple[int, int]) -> None:
    clock = Clock()
    silence = HeartbeatMonitor(pipe[0], clock)
    clock.now = 5000.0
    silence.listen()
    assert silence.seconds == 1
    silence.close()


def test_a_pulse_never_waits_whether_anybody_reads_or_not(pipe: tuple[int, int]) -> None:
    clock = Clock()
    heartbeat = Heartbeat(pipe[1], clock)
    for clock.now in range(1, 70_001):  # more than a pipe holds
        heartbeat()
    os.close(pipe[0])
    clock.now += 1
    heartbeat()
    Heartbeat(None)()


def test_every_question_and_every_news_of_a_job_is_a_sign() -> None:
    signs: list[int] = []
    fence = Fence(spec_for("file-1").id, 1)
    report = Reporting(
        None,  # type: ignore[arg-type]  # nothing is sent
        fence,
        threading.Event(),
        heartbeat=lambda: signs.append(1),
    )
    for number, say in enumerate(
        (
            lambda: report.wanted(),
            lambda: report.event("info", "a"),
            lambda: report.metrics(1, {"train_loss": 1.0}),
            lambda: report.checkpoint(1, "one"),
            lambda: report.progress(1, 2, None),
        ),
        1,
    ):
        say()
        assert len(signs) == number
