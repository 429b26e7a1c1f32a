"""Static tensors for steps of single tokens: what stands in them, and when they are recorded."""

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adapters_core.base.spec import Shape
from adapters_core.layers.bank import EMPTY_SLOT, Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.serving_plan import ServingPlan
from server.adapters.payload import Factored, Merged
from server.adapters.residency import Entry
from server.engine.attention_device import DeviceCache
from server.engine.cuda_graphs import (
    DecodeGraphs,
    Parts,
    StaticStep,
    padded_pages,
    padded_rows,
    parts_of,
)
from server.engine.step_tensors import pack
from server.scheduling.sequence import Sampling, TokenSequence
from server.scheduling.step import Batch, Work
from server_parts import CPU, FOURIERFT

PAGE = 8


def bank_of(slots: int = 4) -> Bank:
    shapes = {"model.layers.0.self_attn.q_proj": Shape(12, 8)}
    methods = FOURIERFT.of_layers(shapes)
    return Bank(Layout.of(methods, shapes), BasisCache(CPU), slots)


def running(length: int, pages: list[int], payload: object = None) -> Work:
    """Return the work on the last of `length` tokens."""
    lease = Entry("key", payload=payload) if payload else None
    sequence = TokenSequence(tuple(range(10, 10 + length)), Sampling(max_tokens=4), lease)
    sequence.pages = pages
    return Work.of(sequence, length - 1, length)


def steps_of(*works: Work) -> Batch:
    return Batch(tuple(works), ())


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_the_table_holds_what_packing_gives(lengths: list[int]) -> None:
    works, page = [], 1
    for length in lengths:
        count = -(-length // PAGE)
        works.append(running(length, list(range(page, page + count))[::-1]))
        page += count
    batch = steps_of(*works)
    packed = pack(batch, PAGE, CPU)
    count = len(lengths)
    step = StaticStep(padded_rows(count), padded_pages(5), 0, PAGE, CPU)
    step.fill(batch.decode, ())
    layout = step.layout()
    assert step.ids[0, :count].tolist() == packed.ids[0, :count].tolist()
    assert step.positions[0, :count].tolist() == packed.positions[0, :count].tolist()
    assert layout.write[:count].tolist() == packed.layout.write[:count].tolist()
    assert layout.lengths[:count].tolist() == lengths
    for row, work in zip(layout.pages.tolist(), works, strict=False):
        own = work.sequence.pages
        assert row == [*own, *[0] * (len(row) - len(own))]
    # Rows behind the batch's own see one cell of page 0 and write there.
    assert set(layout.lengths[count:].tolist()) <= {1}
    assert all(0 <= cell < PAGE for cell in layout.write[count:].tolist())
    assert layout.starts.tolist() == list(range(step.rows + 1))
    assert layout.num_single == step.rows


def test_a_table_that_was_longer_keeps_nothing_of_it() -> None:
    bank = bank_of()
    step = StaticStep(4, 8, 1, PAGE, CPU)
    step.fill(steps_of(*[running(60, list(range(1, 9)), Factored(bank, 3))] * 4).decode, (bank,))
    step.fill(steps_of(running(3, [5])).decode, (bank,))
    assert step.slots(0).tolist() == [EMPTY_SLOT] * 4
    assert step.layout().pages.tolist() == [[5, *[0] * 7], *[[0] * 8] * 3]
    assert step.ids.tolist() == [[12, 0, 0, 0]]


def test_every_row_has_its_slot_in_its_own_bank_and_the_empty_one_in_others() -> None:
    one, two = bank_of(), bank_of()
    works = (
        running(3, [1], Factored(one, 2)),
        running(3, [2]),
        running(3, [3], Factored(two, 4)),
        running(3, [4], Factored(one, 3)),
        running(3, [5], Factored(two, 1)),
    )
    parts = parts_of(steps_of(*works))
    assert parts is not None
    assert set(parts.banks) == {one, two}
    step = StaticStep(8, 1, 2, PAGE, CPU)
    step.fill(works, parts.banks)
    slots = {bank: step.slots(number).tolist() for number, bank in enumerate(parts.banks)}
    assert slots[one] == [2, 0, 0, 3, 0, 0, 0, 0]
    assert slots[two] == [0, 0, 4, 0, 1, 0, 0, 0]


def test_sizes_are_few_and_large_enough() -> None:
    assert [padded_rows(n) for n in (1, 4, 5, 8, 9, 32, 33)] == [4, 4, 8, 8, 16, 32, 40]
    assert [padded_pages(n) for n in (1, 2, 3, 4, 5, 64, 65)] == [1, 2, 4, 4, 8, 64, 128]


def test_prompts_and_merged_rows_beside_others_are_not_for_static_tensors() -> None:
    single = running(3, [1])
    merged, other = Merged({}), Merged({})
    assert parts_of(Batch((single,), (Work.of(running(4, [2]).sequence, 0, 4),))) is None
    assert parts_of(Batch((), ())) is None
    assert parts_of(steps_of(single, running(3, [2], merged))) is None
    assert parts_of(steps_of(running(3, [1], other), running(3, [2], merged))) is None
    alone = parts_of(steps_of(running(3, [1], merged), running(3, [2], merged)))
    assert alone == Parts(merged=merged)


class Recorder:
    """Stands for CUDA's: counts recordings, and replays by calling what it was given."""

    def __init__(self, fails: bool = False) -> None:
        self.recorded = 0
        self.replayed = 0
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


class Ids:
    """A forward pass whose logits are the ids, so that a replay is told from a run."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, ids: Tensor, positions: Tensor, plan: ServingPlan | None) -> Tensor:
        self.runs += 1
        return ids[0][:, None]


def graphs_of(recorder: Recorder) -> tuple[DecodeGraphs, Ids]:
    forward = Ids()
    return DecodeGraphs(forward, DeviceCache(9, PAGE), CPU, recorder), forward


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
    told(graphs, running(9, [1, 2]))  # another page: another shape
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


def test_a_step_that_cannot_be_recorded_is_computed_every_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    graphs, forward = graphs_of(Recorder(fails=True))
    for length in (3, 4, 5):
        assert told(graphs, running(length, [1])) == [9 + length]
    assert forward.runs == 3
    assert len(caplog.records) == 1  # said once
    assert "4 rows cannot be recorded" in caplog.text


def test_old_recordings_go_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.engine.cuda_graphs._MAX_RECORDINGS", 2)
    recorder = Recorder()
    graphs, _ = graphs_of(recorder)
    for count in (1, 5, 9):
        for _ in range(2):
            told(graphs, *[running(3, [1])] * count)
    assert graphs.num_recordings == 2
    told(graphs, *[running(3, [1])] * 9)
    assert recorder.recorded == 3
