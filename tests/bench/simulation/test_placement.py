from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.simulation.placement import homes_of, policies
from bench.simulation.residency import Residency


@given(st.integers(1, 40), st.integers(1, 9))
def test_every_replica_is_a_home_of_every_adapter(adapters: int, replicas: int) -> None:
    homes = homes_of(adapters, replicas)
    assert len(homes) == adapters
    assert all(sorted(found) == list(range(replicas)) for found in homes)


@given(st.integers(1, 40), st.integers(2, 9))
def test_a_replica_that_leaves_moves_only_its_own_adapters(adapters: int, replicas: int) -> None:
    before, after = homes_of(adapters, replicas), homes_of(adapters, replicas - 1)
    for homes, fewer in zip(before, after, strict=True):
        assert [home for home in homes if home != replicas - 1] == fewer


def test_homes_are_spread_evenly() -> None:
    homes = Counter(found[0] for found in homes_of(10_000, 100))
    chi_square = sum((homes[home] - 100) ** 2 / 100 for home in range(100))
    assert 99 - 5 * 14.1 < chi_square < 99 + 5 * 14.1  # 99 degrees of freedom


@given(st.lists(st.integers(0, 50), min_size=1, max_size=9), st.integers(0, 11), st.integers(0, 99))
def test_a_policy_names_a_replica(queues: Sequence[int], adapter: int, seed: int) -> None:
    homes = homes_of(12, len(queues))
    for policy in policies(homes, seed).values():
        assert 0 <= policy.place(adapter, queues) < len(queues)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=9), st.integers(0, 11))
def test_spill_over_takes_the_first_home_that_is_not_overloaded(
    queues: Sequence[int], adapter: int
) -> None:
    homes = homes_of(12, len(queues))
    chosen = policies(homes, 0)["hashing, spill-over"].place(adapter, queues)
    limit = 1.25 * (sum(queues) + 1) / len(queues)
    assert queues[chosen] < limit
    assert all(queues[home] >= limit for home in homes[adapter][: homes[adapter].index(chosen)])


def test_two_choices_prefer_the_shorter_queue() -> None:
    place = policies(homes_of(1, 2), 0)["two choices"].place
    chosen = Counter(place(0, [0, 9]) for _ in range(4000))
    assert chosen[1] / 4000 == pytest.approx(0.25, abs=0.05)  # only if both choices were it


@given(st.integers(1, 5), st.lists(st.integers(0, 9), max_size=60))
def test_the_least_recently_used_makes_room(slots: int, adapters: Sequence[int]) -> None:
    residency = Residency(slots * 7 + 6, 7)
    residency.fill(adapters)
    recent = list(dict.fromkeys(reversed(adapters)))[:slots]
    assert {adapter for adapter in range(10) if adapter in residency} == set(recent)
    assert residency.num_bytes == 7 * len(recent)


def test_what_is_in_use_stays_and_what_finds_no_room_is_refused() -> None:
    residency = Residency(20, 10)
    assert residency.acquire(1)
    assert residency.acquire(1)
    assert residency.acquire(2)
    assert not residency.acquire(3)
    residency.release(1)
    assert not residency.acquire(3)
    residency.release(1)
    assert residency.acquire(3)
    assert 1 not in residency
