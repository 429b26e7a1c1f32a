"""Short answers: what the rounds' figures come to."""

import pytest

from bench.programs.short_answers import rows_of


def test_each_number_of_adapters_is_held_against_the_bases_rounds_and_the_most_against_one() -> (
    None
):
    # The machine is slower in the second round, for all alike.
    rows = rows_of({0: [200.0, 100.0], 1: [190.0, 95.0], 1000: [180.0, 90.0]})
    assert [row["adapters"] for row in rows] == [1, 1000, 1000]
    assert [row["ratio"] for row in rows] == pytest.approx([0.95, 0.9, 180 / 190])
    assert rows[0]["tokens_s"] == pytest.approx(142.5)
    assert rows[0]["against"] == pytest.approx(150)
    assert rows[1]["ratios"] == [0.9, 0.9]
