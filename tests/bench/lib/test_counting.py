"""What is counted of operations that can be counted by hand."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adapters_core.layers.side_stream import SideStream
from bench.lib.counting import BANDWIDTH, KERNEL_S, Cost, Tally, cost_of, counted

META = torch.device("meta")


def on_meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=META)


X, WEIGHT, INDEX = on_meta(32, 64), on_meta(128, 64), on_meta(8, dtype=torch.int64)
CELLS = on_meta(1000, 64)


@pytest.mark.parametrize(
    ("run", "launches", "num_bytes"),
    [
        (lambda: F.linear(X, WEIGHT), 1, 4 * (32 * 64 + 128 * 64 + 32 * 128)),
        (lambda: X + 1, 1, 2 * 4 * 32 * 64),
        (lambda: X.add_(X), 1, 3 * 4 * 32 * 64),
        (lambda: X.to(torch.bfloat16), 1, (4 + 2) * 32 * 64),
        (lambda: X.t().contiguous(), 1, 2 * 4 * 32 * 64),
        (lambda: X.zero_(), 1, 4 * 32 * 64),
        (lambda: X + on_meta(64).expand(32, 64), 1, 4 * (2 * 32 * 64 + 64)),
        (lambda: torch.add(X, 1, out=on_meta(32, 64)), 1, 2 * 4 * 32 * 64),
        # What is gathered and scattered, not what it is gathered from.
        (lambda: CELLS[INDEX], 1, 8 * 8 + 2 * 4 * 8 * 64),
        (lambda: F.embedding(INDEX, CELLS), 1, 8 * 8 + 2 * 4 * 8 * 64),
        (lambda: CELLS.index_copy_(0, INDEX, on_meta(8, 64)), 1, 8 * 8 + 2 * 4 * 8 * 64),
        (lambda: CELLS.index_add_(0, INDEX, on_meta(8, 64)), 1, 8 * 8 + 3 * 4 * 8 * 64),
        # Views and memory that is only reserved.
        (lambda: X.view(64, 32).t()[3:, ::2].unsqueeze(0).expand(4, -1, -1), 0, 0),
        (lambda: (torch.empty_like(X), X.new_empty(5)), 0, 0),
        (lambda: torch.ones(5) + 1, 0, 0),
    ],
)
def test_launches_and_bytes(run: Callable[[], object], launches: int, num_bytes: int) -> None:
    assert cost_of(run).cost == Cost(launches=launches, num_bytes=num_bytes)


def test_attention_is_one_launch_whatever_it_is_made_of() -> None:
    q, kv = on_meta(32, 8, 4, 16), on_meta(32, 8, 100, 16)
    mask = torch.ones(32, 1, 1, 100, dtype=torch.bool, device=META)
    tally = cost_of(lambda: F.scaled_dot_product_attention(q, kv, kv, attn_mask=mask))
    assert tally.names == {"attention": 1}
    assert tally.cost.num_bytes == 2 * q.nbytes + 2 * kv.nbytes


@pytest.mark.parametrize(
    ("run", "waits", "uploads", "upload_bytes"),
    [
        (lambda: X.sum().item(), 1, 0, 0),
        (lambda: X.tolist(), 1, 0, 0),
        (lambda: X.cpu(), 1, 0, 0),
        (lambda: bool((X == 0).all()), 1, 0, 0),
        (lambda: torch.unique(INDEX), 1, 0, 0),
        (lambda: torch.tensor([1, 2, 3], device=META), 1, 1, 24),
        (lambda: torch.ones(5).to(META), 1, 1, 20),
        (lambda: X[0].copy_(torch.ones(64)), 1, 1, 256),
        (lambda: X[0].copy_(torch.ones(64), non_blocking=True), 0, 1, 256),
        (lambda: X.to(torch.float64).to(META), 0, 0, 0),
    ],
)
def test_waits_and_uploads(
    run: Callable[[], object], waits: int, uploads: int, upload_bytes: int
) -> None:
    cost = cost_of(run).cost
    assert (cost.waits, cost.uploads, cost.upload_bytes) == (waits, uploads, upload_bytes)


def test_work_on_a_side_stream_is_counted_in_all_and_beside() -> None:
    def run() -> None:
        side = SideStream()
        with side.forked(META):
            X.add_(1)
        side.join()
        X.add_(1)

    tally = cost_of(run)
    assert tally.cost.launches == 2
    assert tally.beside == Cost(launches=1, num_bytes=2 * X.nbytes)


def test_the_main_stream_waits_for_a_longer_side_stream_alone() -> None:
    def run(beside: int, main: int) -> None:
        side = SideStream()
        X.add_(1)  # before the fork, so neither's
        with side.forked(META):
            for _ in range(beside):
                X.add_(1)
        for _ in range(main):
            X.add_(1)
        side.join()

    each = KERNEL_S + 2 * X.nbytes / BANDWIDTH
    assert cost_of(lambda: run(3, 1)).late_s == pytest.approx(2 * each)
    assert cost_of(lambda: run(2, 2)).late_s == 0
    assert cost_of(lambda: (run(2, 1), run(1, 2))).late_s == pytest.approx(each)


def test_kernels_of_triton_are_heard() -> None:
    pytest.importorskip("triton")
    from adapters_core.gpu_kernels.running import launch
    from adapters_core.gpu_kernels.spectral import analyse

    tally = cost_of(lambda: launch(analyse, (32, 4), 77, x=X))
    assert tally.cost == Cost(launches=1, own=1, num_bytes=77)
    assert tally.names == {"analyse": 1}
    assert [one.grid for one in tally.heard] == [(32, 4)]


def test_what_is_not_in_the_block_is_not_counted() -> None:
    with counted() as tally:
        X.add_(1)
    X.add_(1)
    assert tally.cost.launches == 1
    assert Tally().cost == Cost()


def test_costs_are_added_and_taken_away() -> None:
    a, b = Cost(5, 2, 100, 1, 3, 40), Cost(1, 1, 10, 1, 1, 4)
    assert a.plus(b, 3) == Cost(8, 5, 130, 4, 6, 52)
    assert a.plus(b, -1).plus(b) == a
