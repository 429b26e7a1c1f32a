"""When steps of single tokens are recorded, what replays them, and how recordings end."""

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from adapters_core.layers.bank import Bank
from adapters_core.layers.serving_plan import ServingPlan
from server.adapters.payload import Factored, Merged
from server.engine.attention_device import DeviceCache
from server.engine.cuda_graphs import DecodeGraphs
from server.engine.recordings import Recordings
from server.scheduling.step import Work
from server_parts import CPU
from steps_made import PAGE, bank_of, running, steps_of


class Recorder:
    """Stands for CUDA's: counts recordings, and replays by telling what was computed once."""

    def __init__(self, fails: bool = False) -> None:
        self.recorded = 0
        self.replayed = 0
        self.retired = 0
        self.fails = fails

    def __call__(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.recorded += 1
        out = run()

        def replay() -> Tensor:
            self.replayed += 1
            return out

        return replay

    def retire(self) -> None:
        self.retired += 1


class Ids:
    """A forward pass whose logits are the ids, so that a replay is told from a run."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, ids: Tensor, positions: Tensor, plan: ServingPlan | None) -> Tensor:
        self.runs += 1
        return ids[0][:, None]


def graphs_of(recorder: Recorder) -> tuple[DecodeGraphs, Ids]:
    forward = Ids()
    return DecodeGraphs(forward, DeviceCache(9, PAGE), CPU, Recordings(recorder)), forward


def told(graphs: DecodeGraphs, *works: Work) -> list[int]:
    logits = graphs.logits(steps_of(*works))
    assert logits is not None
    numbers: Any = logits[:, 0].tolist()
    return numbers


def test_a_shape_is_recorded_when_it_comes_again_and_replayed_from_then_on() -> None:
    recorder = Recorder()
    graphs, forward = graphs_of(recorder)
    for length in (3, 4, 5, 6):
        # The recording reads the table where it stands, so new numbers need no new recording.
        assert told(graphs, running(length, [1]), running(7, [2])) == [9 + length, 16]
    assert (recorder.recorded, recorder.replayed, forward.runs) == (1, 3, 2)
    told(graphs, running(33, [1, 2, 3, 4, 5]))  # more pages: another form
    assert (recorder.recorded, graphs.num_recordings, forward.runs) == (1, 1, 3)


def test_only_rows_that_sample_are_told() -> None:
    graphs, _ = graphs_of(Recorder())
    behind = running(5, [2])
    again = Work.of(behind.sequence, 2, 3)  # a preempted sequence catches up
    assert told(graphs, running(3, [1]), again, running(4, [3])) == [12, 13]


def test_a_bank_that_grew_is_recorded_anew_and_its_old_recording_forgotten() -> None:
    recorder, bank = Recorder(), bank_of(slots=1)
    graphs, _ = graphs_of(recorder)
    row = torch.zeros(bank.layout.width)
    first = Factored(bank, bank.add(row))
    for _ in range(3):
        told(graphs, running(3, [1], first))
    bank.add(row)
    bank.add(row)
    for _ in range(2):
        told(graphs, running(3, [1], first))
    assert recorder.recorded == 2
    assert graphs.num_recordings == 1


def test_a_bank_that_grows_while_it_is_recorded_is_not_replayed() -> None:
    recorder, bank = Recorder(), bank_of(slots=1)
    graphs, forward = graphs_of(recorder)
    row = torch.zeros(bank.layout.width)
    work = running(3, [1], Factored(bank, bank.add(row)))
    told(graphs, work)
    original = forward.__class__.__call__

    def growing(self: Ids, *args: Any) -> Tensor:
        bank.add(row)
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ids, "__call__", growing)
        told(graphs, work)
    assert recorder.recorded == 1
    assert graphs.num_recordings == 0


def test_merged_weights_are_not_kept_by_their_recording() -> None:
    graphs, _ = graphs_of(Recorder())
    payload = Merged({"w": torch.ones(3)})
    for _ in range(3):
        told(graphs, running(3, [1], payload))
    assert graphs.num_recordings == 1
    del payload
    gc.collect()
    told(graphs, running(3, [1], Merged({})))
    assert graphs.num_recordings == 0


def test_after_a_failure_nothing_is_recorded_or_replayed(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    graphs, forward = graphs_of(recorder)
    for length in (3, 4):
        told(graphs, running(length, [1]))
    recorder.fails = True
    heard: list[bool] = []
    assert graphs.recordings is not None
    graphs.recordings.tell(heard.append)
    for count in (8, 8, 1, 1, 16, 16):
        assert told(graphs, *[running(5, [1])] * count) == [14] * count
    assert (recorder.recorded, recorder.replayed, graphs.num_recordings) == (1, 1, 0)
    assert forward.runs == 2 + 6
    assert recorder.retired == 0
    assert heard == [True, False]
    (record,) = caplog.records  # said once
    assert "RuntimeError: operation not permitted when stream is capturing" in record.message


def test_all_recordings_end_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.engine.cuda_graphs._MAX_RECORDINGS", 2)
    recorder = Recorder()
    graphs, _ = graphs_of(recorder)
    for count in (1, 5):
        for _ in range(2):
            told(graphs, *[running(3, [1])] * count)
    assert (graphs.num_recordings, recorder.retired) == (2, 0)
    told(graphs, *[running(3, [1])] * 9)
    assert (graphs.num_recordings, recorder.retired) == (0, 1)
    told(graphs, *[running(3, [1])] * 9)
    told(graphs, running(3, [1]))  # it came often enough before
    assert (graphs.num_recordings, recorder.retired, recorder.recorded) == (2, 1, 4)


def test_what_another_engine_has_ended_is_not_replayed() -> None:
    recorder = Recorder()
    graphs, forward = graphs_of(recorder)
    assert graphs.recordings is not None
    other = DecodeGraphs(Ids(), DeviceCache(9, PAGE), CPU, graphs.recordings)
    for _ in range(3):
        told(graphs, running(3, [1]))
    other._retire()
    assert told(graphs, running(5, [1])) == [14]
    assert (recorder.recorded, forward.runs) == (2, 3)


def test_recordings_that_are_not_replayed_any_more_count_until_they_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("server.engine.cuda_graphs._MAX_RECORDINGS", 2)
    recorder = Recorder()
    graphs, _ = graphs_of(recorder)
    for _ in range(3):
        payload = Merged({"w": torch.ones(3)})
        for _ in range(2):
            told(graphs, running(3, [1], payload))
        del payload
        gc.collect()
    assert (recorder.recorded, recorder.retired) == (3, 1)


def test_forms_that_come_rarely_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.engine.cuda_graphs._MAX_UNRECORDED", 2)
    graphs, _ = graphs_of(Recorder())
    for _ in range(2):
        told(graphs, running(3, [1]))
    for count in (5, 9, 17, 33):
        told(graphs, *[running(3, [1])] * count)
    assert len(list(graphs._entries())) <= 3
    assert graphs.num_recordings == 1


def test_the_bases_steps_are_recorded_at_start(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    graphs, forward = graphs_of(recorder)
    assert graphs.recordings is not None
    graphs.recordings.retire()  # as the calibration does
    with caplog.at_level("INFO"):
        graphs.prepare(16)
    assert (recorder.recorded, graphs.num_recordings) == (16, 16)  # 4, 8, 12, 16 x 4
    assert "recorded steps of 16 forms" in caplog.text
    told(graphs, running(3, [1]))
    assert (recorder.replayed, forward.runs) == (1, 16)


def test_recording_at_start_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.engine.cuda_graphs._START_S", -1.0)
    recorder = Recorder()
    graphs, _ = graphs_of(recorder)
    graphs.prepare(16)
    assert recorder.recorded == 0


class ByKernels(Bank):
    """A bank that says of its layers that kernels take them."""

    def kernels_of(self, target: str) -> Any:
        return self, 0


@pytest.mark.parametrize("by_kernels", [True, False])
def test_a_recording_with_further_banks_serves_where_kernels_pass_over_them(
    by_kernels: bool,
) -> None:
    recorder = Recorder()
    graphs, _ = graphs_of(recorder)
    banks = [bank_of(), bank_of()]
    if by_kernels:
        for bank in banks:
            bank.__class__ = ByKernels
    one, two = (Factored(bank, bank.add(torch.zeros(bank.layout.width))) for bank in banks)
    for _ in range(2):
        told(graphs, running(3, [1], one), running(3, [2], two))
    assert recorder.recorded == 1
    for payload in (one, two, None):
        told(graphs, running(4, [1], payload))
        told(graphs, running(4, [1], payload))
    assert recorder.recorded == (1 if by_kernels else 4)
    assert recorder.replayed == (7 if by_kernels else 4)


def test_merged_rows_beside_others_are_recorded_once_they_are_seen_to_stay() -> None:
    recorder, merged = Recorder(), Merged({"w": torch.ones(1)})
    graphs, forward = graphs_of(recorder)
    for _ in range(7):
        told(graphs, running(3, [1], merged), running(3, [2]))
    assert (recorder.recorded, forward.runs) == (0, 7)
    told(graphs, running(3, [2]), running(3, [1], merged), running(4, [1], merged))
    assert (recorder.recorded, recorder.replayed) == (1, 1)


def test_a_recording_with_fewer_banks_does_not_serve() -> None:
    recorder = Recorder()
    graphs, _ = graphs_of(recorder)
    banks = [bank_of(), bank_of()]
    for bank in banks:
        bank.__class__ = ByKernels
    one, two = (Factored(bank, bank.add(torch.zeros(bank.layout.width))) for bank in banks)
    for _ in range(2):
        told(graphs, running(3, [1], one))
    assert told(graphs, running(3, [1], one), running(4, [2], two)) == [12, 13]
    assert (recorder.recorded, recorder.replayed) == (1, 1)
