"""What a GPU does at an 8B base's shape stays below bench/programs/gpu_bars.py."""

from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("triton")

from bench.lib.counting import BANDWIDTH, KERNEL_S, OWN_KERNEL_S, Cost
from bench.programs.gpu_bars import BARS, GOALS, SPEEDS
from bench.programs.gpu_cost import (
    Row,
    bars_of,
    counted_rows,
    extra_seconds,
)
from bench.programs.gpu_counts import LAYERS, Counts, Layered, methods
from server_parts import torch_threads

QUICK = ("fourierft", "loca", "lora", "waveletft")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return {row.name: row for row in counted_rows({name: methods()[name] for name in QUICK})}


def crossed(rows: dict[str, Row]) -> dict[str, str]:
    return {
        f"{row.name}, {name}": f"{row.figures[name]:g} > {BARS.get(row.name, {}).get(name)}"
        for row in rows.values()
        for name in row.crossed
    }


def test_no_bar_is_crossed(rows: dict[str, Row]) -> None:
    assert crossed(rows) == {}


def test_the_estimated_speeds_are_those_wanted(rows: dict[str, Row]) -> None:
    for name, wanted in SPEEDS.items():
        others = rows[name].others
        assert others["mixed / base"] >= wanted > others["in a row"]


@pytest.mark.slow
def test_no_bar_of_the_other_methods_is_crossed() -> None:
    others = {name: method for name, method in methods().items() if name not in QUICK}
    assert crossed({row.name: row for row in counted_rows(others)}) == {}


def test_every_bar_and_every_goal_is_of_a_row_that_is_counted(rows: dict[str, Row]) -> None:
    own = {name for name in BARS if name.split()[1] in {*QUICK, "base", "merged"}}
    assert own == set(rows)
    assert {name.split()[1] for name in BARS} == {*methods(), "base", "merged"}
    for name, goals in GOALS.items():
        assert set(goals) <= set(rows[name].figures)
        assert all(BARS[name][figure] >= goal for figure, goal in goals.items())


def test_a_figure_beyond_its_bar_or_without_one_is_named() -> None:
    [name] = [name for name in BARS if name == "decode base"]
    bars = BARS[name]
    assert Row(name, bars, {}).crossed == []
    assert Row(name, {**bars, "launches": bars["launches"] + 1}, {}).crossed == ["launches"]
    assert Row("decode nothing", {"launches": 0, "MB": 0}, {}).crossed == ["launches", "MB"]


def test_bars_are_what_was_counted_or_a_goal_that_is_reached() -> None:
    goal = GOALS["decode fourierft qv"]["launches"]
    for counted, bar in ((goal - 1, goal), (goal + 1.23456, goal + 1.235)):
        row = Row("decode fourierft qv", {"launches": counted}, {})
        assert bars_of([row])[row.name] == {"launches": pytest.approx(bar)}


def test_a_base_of_two_layers_tells_what_all_layers_cost(rows: dict[str, Row]) -> None:
    def counts(launches: int) -> Counts:
        return Counts(Cost(launches), Cost(launches // 10))

    base, step = Layered(counts(17), counts(30)), Layered(counts(20), counts(40))
    assert base.layer == Counts(Cost(13), Cost(2))
    assert base.whole == Counts(Cost(17 + (LAYERS - 1) * 13), Cost(1 + (LAYERS - 1) * 2))
    assert step.beyond(base).layer == Counts(Cost(7), Cost(0))


def test_the_estimate_is_its_arithmetic() -> None:
    beside = Cost(launches=3, own=2, num_bytes=4)
    extra = Counts(Cost(launches=10, own=4, num_bytes=43), beside, late_s=1e-6)
    in_a_row = 6 * KERNEL_S + 4 * OWN_KERNEL_S + 43 / BANDWIDTH
    assert extra_seconds(extra, with_beside=True) == pytest.approx(in_a_row)
    hidden = KERNEL_S + 2 * OWN_KERNEL_S
    assert extra_seconds(extra, with_beside=False) == pytest.approx(in_a_row - hidden + 1e-6)
    alone = Cost(launches=5, own=2, num_bytes=86).base_seconds
    assert alone == pytest.approx(5 * KERNEL_S + 86 / BANDWIDTH)


def test_the_weights_are_the_bytes_of_a_step(rows: dict[str, Row]) -> None:
    layer = 2 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 14336 * 4096)
    cache = 2 * 2 * 32 * 128 * 8 * 128  # keys and values of 32 rows and 128 tokens, once
    assert rows["decode base"].figures["MB"] * 1e6 >= layer + cache
    assert rows["decode base"].figures["MB"] * 1e6 <= 1.25 * layer


def test_nothing_is_left_replaced(rows: dict[str, Row]) -> None:
    assert torch.ones(3).sum().item() == 3
