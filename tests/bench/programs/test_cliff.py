"""No cliff: what the rounds' figures come to, and the picture of them."""

from pathlib import Path

import pytest

from bench.programs.cliff import Asked, Case, Found, draw, rows_of

ONE, MANY = Case(1, "zipf"), Case(1000, "zipf")


def test_each_case_is_held_against_the_fewest_adapters_in_its_own_traffic_and_rounds() -> None:
    # The machine is slower in the second round, for all alike.
    found = {
        ONE: Found([200.0, 100.0], [0.1, 0.3]),
        MANY: Found([190.0, 90.0], [0.2, 0.4]),
        Case(1, "uniform"): Found([50.0, 50.0], [1.0]),
    }
    rows = rows_of(found, 1)
    assert [row["ratio"] for row in rows] == pytest.approx([1.0, 0.925, 1.0])
    assert rows[1]["ratios"] == [0.95, 0.9]
    assert rows[1]["tokens_s"] == pytest.approx(140.0)
    assert rows[1]["first_p50_s"] == pytest.approx(0.3)
    assert rows[1]["first_p95_s"] == pytest.approx(0.39)


def test_even_traffic_reaches_every_adapter_and_zipf_prefers_the_first() -> None:
    asked = Asked(requests=400, prompt=3, new=2)
    drawn = {}
    for case in (Case(20, "uniform"), Case(20, "zipf")):
        requests = asked.load(case).requests(seed=1)
        drawn[case.traffic] = [next(requests).adapter for _ in range(asked.requests)]
    assert set(drawn["uniform"]) == set(range(20))
    assert drawn["zipf"].count(0) > 3 * drawn["uniform"].count(0)


def test_the_picture_has_both_figures(tmp_path: Path) -> None:
    rows = rows_of({ONE: Found([2.0], [0.1]), MANY: Found([1.0], [0.2])}, 1)
    draw(rows, tmp_path / "cliff.svg")
    text = (tmp_path / "cliff.svg").read_text()
    assert text.count('id="axes_') == 2
