"""Loops on torch's own threads: each block once, and the same bits on any number of threads."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numba.np.numpy_support import carray

from adapters_core.contract.method import PackedLayer, Rows, Shape
from adapters_core.kernels import spectral_plan, team
from adapters_core.kernels.lane_spectra import lane_analysis, lane_tables, lane_update
from adapters_core.kernels.team import cube, matrix, run_on_team, take, team_size, vector

needs_team = pytest.mark.skipif(team._enter() is None, reason="torch has another OpenMP here")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@team.team_loop
def count(given):  # type: ignore[no-untyped-def]
    """Count how often each block is taken, and by how many threads; sum what came with it."""
    at = carray(given, 16)
    factor, taken = int(at[3]), vector(at, 4, np.int64)
    table, box, threads = (
        matrix(at, 6, np.float32),
        cube(at, 9, np.float32),
        vector(at, 13, np.int64),
    )
    threads[take(at, np.uintp(0))] += 1
    block = int(take(at, np.uintp(1)))
    while block < int(at[2]):
        taken[block] += 1
        table[block, 1] = factor * box[block, 1, 2]
        block = int(take(at, np.uintp(1)))


@needs_team
@pytest.mark.parametrize("threads", [2, 3])
def test_every_block_is_taken_once_and_every_thread_comes(threads: int) -> None:
    torch.set_num_threads(threads)
    taken, came = np.zeros(1000, np.int64), np.zeros(8, np.int64)
    table, box = np.zeros((1000, 2), np.float32), np.random.rand(1000, 2, 3).astype(np.float32)
    run_on_team(count, 1000, (3, taken, table, box, came))
    assert (taken == 1).all()
    assert came.tolist() == [1] * threads + [0] * (8 - threads)
    assert (table[:, 1] == 3 * box[:, 1, 2]).all()
    assert not table[:, 0].any()


def test_a_team_is_for_many_blocks_several_threads_and_the_library_that_torch_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(team, "_enter", lambda: print)
    assert [team_size(blocks) for blocks in (1, 6, 7, 100)] == [1, 1, 2, 2]
    torch.set_num_threads(1)
    assert team_size(100) == 1
    torch.set_num_threads(2)
    monkeypatch.setattr(team, "_enter", lambda: None)
    assert team_size(100) == 1


@needs_team
@pytest.mark.parametrize("shape", [Shape(280, 120), Shape(512, 2048)], ids=str)
def test_a_row_has_the_same_bits_on_any_number_of_threads(shape: Shape) -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(shape.out // 2 + 1, (200,), generator=generator)
    cols = torch.randint(shape.in_ // 2 + 1, (200,), generator=generator)
    plus = torch.randint(2, (200,), generator=generator) > 0
    plan = spectral_plan(cols, rows, plus, shape.out // 2 + 1, torch.device("cpu"))
    tables, layer = (
        lane_tables(shape),
        PackedLayer(torch.randn(5, 209, generator=generator), 4, 200),
    )
    x, slots = (
        torch.randn(150, shape.in_, generator=generator),
        torch.randint(5, (150,), generator=generator),
    )

    def updates(start: int, stop: int) -> torch.Tensor:
        own = slots[start:stop]
        spectra = lane_analysis(x[start:stop], tables)
        return lane_update(spectra, layer, Rows(own, len(own)), plan, tables)

    whole = updates(0, 150)
    torch.set_num_threads(3)
    assert torch.equal(updates(0, 150), whole)
    torch.set_num_threads(1)
    assert torch.equal(updates(0, 150), whole)
    torch.set_num_threads(2)
    for start, stop in [(0, 1), (3, 70), (15, 33), (80, 150), (149, 150)]:
        assert torch.equal(updates(start, stop), whole[start:stop])
