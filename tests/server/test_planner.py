"""Which mode a request gets."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.planner import ModeSetting, Planner


@pytest.mark.parametrize("setting", ["factored", "merged"])
def test_a_setting_forces_the_mode(setting: ModeSetting) -> None:
    planner = Planner(setting, window=2)
    assert [planner.choose("a") for _ in range(5)] == [setting] * 5


def test_half_of_the_recent_requests_are_worth_a_merged_copy() -> None:
    planner = Planner("auto", window=6)
    modes = [planner.choose(digest) for digest in "aabaaabbb"]
    assert modes == ["factored"] * 3 + ["merged"] * 3 + ["factored", "merged", "merged"]


def test_without_room_for_a_copy_everything_is_factored() -> None:
    planner = Planner("auto", can_merge=False, window=2)
    assert {planner.choose("a") for _ in range(5)} == {"factored"}


@settings(max_examples=100, deadline=None)
@given(requests=st.lists(st.sampled_from("abcd"), max_size=60), window=st.integers(1, 9))
def test_only_the_window_counts(requests: list[str], window: int) -> None:
    planner, recent = Planner("auto", window=window), deque[str](maxlen=window)
    for digest in requests:
        recent.append(digest)
        wanted = "merged" if 2 * recent.count(digest) >= window else "factored"
        assert planner.choose(digest) == wanted
        assert set(planner._counts) == set(recent), "forgotten adapters are still counted"
