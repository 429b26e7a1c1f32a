"""Recordings end together, and the first failure ends recording."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from server.engine.recordings import CudaMaker, Recordings, recordings_on
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


class Cuda:
    """What CudaMaker asks of torch.cuda, written down in order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.current = "default"
        self.num_streams = self.num_pools = 0

    def Stream(self, device: torch.device) -> "FakeStream":
        self.num_streams += 1
        return FakeStream(f"capture {self.num_streams}")

    def current_stream(self, device: torch.device) -> "FakeStream":
        return FakeStream(self.current)

    @contextmanager
    def stream(self, stream: "FakeStream") -> Iterator[None]:
        before, self.current = self.current, stream.name
        try:
            yield
        finally:
            self.current = before

    def synchronize(self, device: torch.device) -> None:
        self.done.append(f"synchronise {device}")

    def empty_cache(self) -> None:
        self.done.append("give back")

    def graph_pool_handle(self) -> str:
        self.num_pools += 1
        return f"pool {self.num_pools}"

    def CUDAGraph(self) -> "FakeGraph":
        return FakeGraph(self)


class FakeStream:
    def __init__(self, name: str) -> None:
        self.name = name

    def wait_stream(self, other: "FakeStream") -> None:
        """Everything here is done at once."""


class FakeGraph:
    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda

    def capture_begin(self, pool: str, capture_error_mode: str) -> None:
        assert capture_error_mode == "thread_local"
        self._cuda.done.append(f"begin in {pool} on {self._cuda.current}")

    def capture_end(self) -> None:
        self._cuda.done.append("end")

    def replay(self) -> None:
        self._cuda.done.append(f"replay on {self._cuda.current}")

    def reset(self) -> None:
        self._cuda.done.append("reset")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    fake = Cuda()
    monkeypatch.setattr(torch, "cuda", fake)
    clear = lambda: fake.done.append("clear workspaces")  # noqa: E731
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", clear, raising=False)
    return fake


def test_all_recordings_are_made_on_one_stream_in_one_pool(cuda: Cuda) -> None:
    make, ran = CudaMaker(torch.device("cuda:1")), list[str]()

    def run() -> Tensor:
        ran.append(cuda.current)
        return torch.ones(2)

    replays = [make(run), make(run)]
    assert ran == ["capture 1"] * 4  # each once before it is recorded
    each = ["synchronise cuda:1", "begin in pool 1 on capture 1", "end"]
    assert cuda.done == each * 2
    assert replays[0]().tolist() == [1, 1]
    assert cuda.done[-1] == "replay on default"


def test_they_end_together_once_the_device_is_idle_and_their_pool_with_them(cuda: Cuda) -> None:
    make = CudaMaker(torch.device("cuda:1"))
    make(ones)
    make(ones)
    cuda.done.clear()
    make.retire()
    ends = ["synchronise cuda:1", "reset", "reset", "clear workspaces", "give back"]
    assert cuda.done == ends
    make(ones)
    assert "begin in pool 2 on capture 1" in cuda.done
    cuda.done.clear()
    make.retire()
    assert cuda.done.count("reset") == 1


def test_a_failure_ends_the_capture_and_leaves_the_stream(cuda: Cuda) -> None:
    recordings = Recordings(CudaMaker(torch.device("cuda:0")))
    runs: list[Any] = []

    def run() -> Tensor:
        runs.append(None)
        if len(runs) == 2:
            raise RuntimeError("operation not permitted when stream is capturing")
        return torch.ones(1)

    assert recordings.record(run) is None
    assert cuda.done[-1] == "end"
    assert cuda.current == "default"
