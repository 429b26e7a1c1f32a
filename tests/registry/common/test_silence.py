"""A claim is stale by the looking process's own clock, and only between looks that succeeded."""

from dataclasses import dataclass

import pytest

from registry.common.silence import Silence


@dataclass(frozen=True)
class Claim:
    id: str
    fence: int = 1
    beats: int = 0


def look(silence, at, *claims):
    silence.begin(at)
    found = [one.id for one in silence.stale(claims, at)]
    silence.end(at)
    return found


def test_a_claim_without_a_heartbeat_for_the_time_is_stale():
    silence = Silence(10.0)

    found = [look(silence, at, Claim("quiet"), Claim("lively", 1, int(at))) for at in (0, 5, 10)]

    assert found == [[], [], ["quiet"]]


def test_a_new_claim_of_the_same_record_is_counted_anew():
    silence = Silence(10.0)
    for at in (0.0, 6.0):
        assert look(silence, at, Claim("one")) == []

    assert look(silence, 12.0, Claim("one", fence=2)) == []
    assert look(silence, 20.0, Claim("one", fence=2)) == []
    assert look(silence, 22.0, Claim("one", fence=2)) == ["one"]


def test_a_process_that_was_suspended_has_seen_nothing():
    silence = Silence(10.0)
    look(silence, 0.0, Claim("one"))

    assert look(silence, 1000.0, Claim("one")) == []


def test_a_look_that_failed_makes_the_next_one_begin_anew():
    silence = Silence(10.0)
    look(silence, 0.0, Claim("one"))
    silence.begin(8.0)

    with pytest.raises(RuntimeError):
        silence.stale(_failing(), 8.0)

    assert look(silence, 11.0, Claim("one")) == []


def _failing():
    raise RuntimeError("the registry is away")
    yield Claim("one")
