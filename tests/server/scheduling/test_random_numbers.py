"""Numbers of a seed are uniform, the same everywhere, and have nothing in common with others."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from server.scheduling.random_numbers import seed_of_choice, uniform

SEEDS = st.integers(-(2**63), 2**63 - 1)


def numbers(seed: int, count: int = 2000) -> list[float]:
    return [uniform(seed, position) for position in range(count)]


def test_they_are_the_same_in_every_process_and_version_of_python() -> None:
    assert seed_of_choice(-1, 2) == 8884511643673968363
    assert numbers(8884511643673968363, 2) == [0.3917708412642722, 0.9482576930189853]


@given(seed=SEEDS, position=st.integers(0, 2**40))
def test_they_are_in_the_half_open_interval(seed: int, position: int) -> None:
    assert 0.0 <= uniform(seed, position) < 1.0


def test_they_are_uniform_along_positions_and_along_seeds() -> None:
    assert kstest(numbers(5), "uniform").pvalue > 1e-3
    assert kstest([uniform(seed, 0) for seed in range(2000)], "uniform").pvalue > 1e-3


def test_those_of_neighbouring_seeds_and_positions_are_not_related() -> None:
    count = 2000
    near = [*(numbers(seed, count) for seed in (4, 5, 6)), numbers(5, count + 1)[1:]]
    related = np.abs(np.corrcoef(near) - np.eye(4)).max()
    assert related < 4.5 / count**0.5  # as many standard deviations


def test_no_choice_of_one_seed_is_a_choice_of_another() -> None:
    seeds = [*range(-200, 200), 2**63 - 1, -(2**63)]
    choices = {seed_of_choice(seed, choice) for seed in seeds for choice in range(128)}
    assert len(choices) == 128 * len(seeds)
