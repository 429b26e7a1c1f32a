"""In what order a load's work reaches a GPU, told by stand-ins for torch's streams and events."""

import itertools
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from adapters_core.layers import load_stream
from adapters_core.layers.load_stream import loading

GPU = torch.device("cuda", 0)


class Stream:
    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def wait_stream(self, other: "Stream") -> None:
        self.log.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    steps = Stream(told, "steps")

    class Event:
        def __init__(self, blocking: bool) -> None:
            assert blocking  # a thread that spins takes a processor from the steps' threads

        def record(self, stream: Stream) -> None:
            told.append(f"event on {stream.name}")

        def synchronize(self) -> None:
            told.append("host waits for event")

    @contextmanager
    def current(stream: Stream) -> Iterator[None]:
        told.append(f"{stream.name} is current")
        try:
            yield
        finally:
            told.append("steps are current")

    numbers = itertools.count(1)

    def made(device: torch.device) -> Stream:
        assert device == GPU
        return Stream(told, f"load {next(numbers)}")

    monkeypatch.setattr(torch.cuda, "Stream", made)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", current)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: steps)
    monkeypatch.setattr(load_stream, "_idle", defaultdict(list))
    return told


def test_a_load_runs_behind_the_steps_and_is_done_at_the_end(log: list[str]) -> None:
    own = "load 1"
    with loading(GPU):
        log.append("work")
    assert log == [
        f"{own} waits for steps",
        f"{own} is current",
        "work",
        "steps are current",
        f"event on {own}",
        "host waits for event",
    ]


def test_what_a_failed_load_has_begun_is_done_before_its_memory_is_given_up(log: list[str]) -> None:
    with pytest.raises(MemoryError), loading(GPU):
        raise MemoryError
    assert log[-2:] == ["event on load 1", "host waits for event"]


def test_what_only_reads_waits_for_no_step(log: list[str]) -> None:
    with loading(GPU, behind_steps=False):
        log.append("work")
    assert not any("waits for steps" in line for line in log)
    assert log[-1] == "host waits for event"


def test_loads_have_no_more_streams_than_there_are_at_once(log: list[str]) -> None:
    def load() -> None:
        with loading(GPU):
            log.append("work")

    for _ in range(3):
        thread = threading.Thread(target=load)
        thread.start()
        thread.join()
    assert {line for line in log if "waits for steps" in line} == {"load 1 waits for steps"}
    with loading(GPU):
        load()
    with pytest.raises(MemoryError), loading(GPU):
        raise MemoryError
    load()
    assert {line for line in log if "waits for steps" in line} == {
        "load 1 waits for steps",
        "load 2 waits for steps",
    }


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_elsewhere_work_is_done_at_once(device: str, log: list[str]) -> None:
    with loading(torch.device(device)):
        pass
    assert log == []
