"""A start says what it does, how much of it is done, and how long it took."""

import pytest

from server.base.phases import Phases


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def phases(clock: list[float], caplog: pytest.LogCaptureFixture) -> Phases:
    caplog.set_level("INFO", "overtone")
    return Phases(lambda: clock[0])


def test_the_innermost_phase_is_said_with_its_progress(
    phases: Phases, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    assert phases.now == "it begins"
    with phases.phase("preparing"):
        clock[0] = 2.0
        with phases.phase("checking"):
            clock[0] = 3.0
            phases.progress(0.25)
            assert phases.now == "checking, 25% done, for 1 s"
        assert phases.now == "preparing, for 3 s"
        clock[0] = 4.5
    phases.skip("measuring")
    phases.finish()
    assert caplog.messages == [
        "start: preparing",
        "start: checking",
        "start: checking took 1.00 s",
        "start: preparing took 4.50 s",
        "start: all took 4.50 s; kept from an earlier start: measuring",
    ]


def test_a_phase_that_takes_long_is_logged_now_and_then(
    phases: Phases, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    with phases.phase("checking"):
        for second in range(1, 13):
            clock[0] = float(second)
            phases.progress(second / 20)
    assert [line for line in caplog.messages if "done" in line] == [
        "start: checking, 25% done, for 5 s",
        "start: checking, 50% done, for 10 s",
    ]


def test_a_phase_that_fails_is_over(phases: Phases, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ArithmeticError), phases.phase("checking"):
        raise ArithmeticError
    assert phases.now == "it begins"
    assert caplog.messages == ["start: checking"]
