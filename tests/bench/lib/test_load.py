import itertools
import math
import statistics
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.lib.load import Lengths, Load, Planned, prompt_of, zipf_shares
from overtone_client import InvalidArgument

SIXTEEN = Lengths("fixed", (16,))


def planned(load: Load, seed: int, count: int) -> list[Planned]:
    return list(itertools.islice(load.requests(seed), count))


def test_open_arrivals_are_a_poisson_process_of_the_rate() -> None:
    load = Load(3, 0.0, SIXTEEN, SIXTEEN, rate=50.0)
    due = [one.at_s for one in planned(load, 7, 20_000)]
    gaps = [b - a for a, b in itertools.pairwise(due)]
    # Exponential gaps: the spread is the mean. Both are known to within five standard errors.
    assert statistics.fmean(gaps) == pytest.approx(1 / 50, rel=5 / math.sqrt(len(gaps)))
    assert statistics.stdev(gaps) == pytest.approx(1 / 50, rel=10 / math.sqrt(len(gaps)))
    counts = [sum(second <= at < second + 1 for at in due) for second in range(300)]
    assert statistics.variance(counts) == pytest.approx(50, rel=0.4)


def test_one_seed_is_one_traffic() -> None:
    load = Load(100, 1.0, Lengths.parse("lognormal:128:0.5"), SIXTEEN, rate=5.0)
    assert planned(load, 3, 200) == planned(load, 3, 200)
    assert planned(load, 3, 200) != planned(load, 4, 200)
    first = planned(load, 3, 2)
    assert prompt_of(first[0], 3, 256) == prompt_of(first[0], 3, 256)
    assert prompt_of(first[0], 3, 256) != prompt_of(first[1], 3, 256)[: first[0].prompt_tokens]


def test_a_closed_loop_knows_no_times() -> None:
    assert {one.at_s for one in planned(Load(3, 0.0, SIXTEEN, SIXTEEN), 0, 50)} == {0.0}


@given(st.integers(1, 300), st.floats(0, 3))
def test_zipf_shares_fall_and_sum_to_one(number: int, skew: float) -> None:
    shares = zipf_shares(number, skew)
    assert math.fsum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)
    assert shares[0] / shares[-1] == pytest.approx(number**skew)


def test_adapters_are_drawn_by_their_shares() -> None:
    load = Load(10, 1.0, SIXTEEN, SIXTEEN)
    drawn = [one.adapter for one in planned(load, 1, 20_000)]
    for rank, share in enumerate(zipf_shares(10, 1.0)):
        assert drawn.count(rank) / len(drawn) == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize(
    ("text", "least", "most", "median"),
    [
        ("fixed:64", 64, 64, 64),
        ("uniform:16:256", 16, 256, 136),
        ("lognormal:128:0.5", 1, 10_000, 128),
        ("lognormal:3:2", 1, 10_000_000, 3),
    ],
)
def test_lengths_are_what_they_are_called(text: str, least: int, most: int, median: float) -> None:
    lengths, random = Lengths.parse(text), Random(0)
    drawn = [lengths.draw(random) for _ in range(5000)]
    assert min(drawn) >= least
    assert max(drawn) <= most
    assert statistics.median(drawn) == pytest.approx(median, rel=0.1)
    assert str(lengths) == text


@pytest.mark.parametrize(
    "text",
    ["", "64", "normal:3:4", "fixed", "fixed:x", "fixed:0", "fixed:inf", "fixed:1:2"]
    + ["uniform:9:8", "uniform:0:8", "lognormal:0.5:1", "lognormal:128:-1", "lognormal:nan:1"],
)
def test_lengths_that_make_no_sense_are_refused_and_named(text: str) -> None:
    with pytest.raises(InvalidArgument, match="lengths"):
        Lengths.parse(text)


@given(st.integers(2, 400), st.integers(0, 1000))
def test_no_request_is_longer_than_the_base(longest: int, seed: int) -> None:
    wide = Lengths.parse("uniform:1:1000")
    for one in planned(Load(5, 1.0, wide, wide, longest=longest), seed, 20):
        assert one.prompt_tokens >= 1
        assert one.max_tokens >= 1
        assert one.prompt_tokens + one.max_tokens <= longest
        assert all(1 <= token < 50 for token in prompt_of(one, seed, 50))
