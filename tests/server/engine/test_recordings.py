"""Recordings end together, and the first failure ends recording."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from server.engine.recordings import Recordings, recordings_on
from server_parts import CPU


class Failing:
    """Makes so many recordings, then fails in a way that no caller foresees."""

    def __init__(self, good: int) -> None:
        self.good = good
        self.retired = 0

    def __call__(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        if self.good == 0:
            raise ValueError("a library's own error")
        self.good -= 1
        return run

    def retire(self) -> None:
        self.retired += 1


def ones() -> Tensor:
    return torch.ones(1)


def test_nothing_is_recorded_after_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    maker = Failing(good=1)
    recordings = Recordings(maker)
    assert recordings.record(ones) is ones
    recordings.retire()
    assert recordings.record(ones) is None
    maker.good = 1
    assert recordings.record(ones) is None
    assert recordings.failure == "ValueError: a library's own error"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_after_a_failure_recordings_are_kept() -> None:
    maker = Failing(good=0)
    recordings = Recordings(maker)
    recordings.record(ones)
    recordings.retire()
    assert maker.retired == 0


def test_it_is_told_now_and_when_it_changes() -> None:
    recordings, heard = Recordings(Failing(good=1)), list[bool]()
    recordings.tell(heard.append)
    recordings.record(ones)
    assert heard == [True]
    recordings.record(ones)
    recordings.record(ones)
    assert heard == [True, False]


def test_a_cpu_records_nothing() -> None:
    assert recordings_on(CPU) is None
