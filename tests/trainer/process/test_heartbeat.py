"""A job's process sends heartbeats, and its worker counts the seconds without one."""

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


def later(clock: Clock, monitor: HeartbeatMonitor, seconds: int) -> float:
    """Poll every second, as a worker does, and return the seconds without a heartbeat."""
    for _ in range(seconds):
        clock.now += 1.0
        monitor.poll()
    return monitor.silent_s


def test_a_silence_grows_until_the_next_heartbeat(pipe: tuple[int, int]) -> None:
    clock = Clock()
    monitor, heartbeat = HeartbeatMonitor(pipe[0], clock), Heartbeat(pipe[1], clock)
    assert later(clock, monitor, 40) == 40
    heartbeat()
    assert later(clock, monitor, 1) == 0
    assert later(clock, monitor, 5) == 5
    monitor.close()
    monitor.close()


def test_a_suspended_worker_counts_no_silence(pipe: tuple[int, int]) -> None:
    clock = Clock()
    monitor = HeartbeatMonitor(pipe[0], clock)
    clock.now = 5000.0
    monitor.poll()
    assert monitor.silent_s == 1
    monitor.close()


def test_a_heartbeat_never_blocks_whether_it_is_read_or_not(pipe: tuple[int, int]) -> None:
    clock = Clock()
    heartbeat = Heartbeat(pipe[1], clock)
    for clock.now in range(1, 70_001):  # more than a pipe holds
        heartbeat()
    os.close(pipe[0])
    clock.now += 1
    heartbeat()
    Heartbeat(None)()


def test_every_report_and_every_question_of_a_job_is_a_heartbeat() -> None:
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
