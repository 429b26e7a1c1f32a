"""A long run: what memory's readings come to."""

import pytest

from bench.programs.endurance import growth


def test_growth_is_what_a_request_leaves_once_the_caches_are_full() -> None:
    filling = [100_000_000, 150_000_000]
    leaking = [200_000_000 + 10_000 * 50 * part for part in range(18)]
    row = growth(filling + leaking, 200_000)
    assert row["bytes_a_request"] == pytest.approx(50)
    assert row["ratio"] == pytest.approx(1 + 15 * 500_000 / 200_500_000)


def test_a_server_that_holds_what_it_held_has_no_growth() -> None:
    row = growth([100_000_000] * 20, 2000)
    assert (row["ratio"], row["bytes_a_request"]) == (1.0, 0.0)
