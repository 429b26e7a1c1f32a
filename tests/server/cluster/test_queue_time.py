import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.cluster.queue_time import QueueTime, QueueTimePolicy, wanted
from server.telemetry.metrics import Metrics


class Scraped:
    """A server's metrics, as a replica reads them."""

    def __init__(self) -> None:
        self.metrics, self.queue_time = Metrics(), QueueTime()

    def at(self, now: float, *waits: float, waiting: int = 0) -> float:
        for wait in waits:
            self.metrics.on_first_token(wait + 0.1, queue_s=wait)
        self.metrics.on_queue(1, waiting)
        return self.queue_time.take(self.metrics.render()[0].decode(), now)


def test_it_is_the_mean_of_what_began_since_the_last_look() -> None:
    scraped = Scraped()
    scraped.at(0.0, 9.0)  # before the first look: another policy's time
    assert scraped.at(2.0, 0.5, 1.5) == pytest.approx(1.0)
    assert scraped.at(4.0, 0.25) == pytest.approx(0.25)


def test_it_grows_while_requests_wait_and_none_begins() -> None:
    scraped = Scraped()
    scraped.at(0.0)
    scraped.at(2.0, 1.0)
    assert scraped.at(5.0, waiting=3) == pytest.approx(3.0)
    assert scraped.at(7.0, waiting=3) == pytest.approx(5.0)
    assert scraped.at(8.0, 6.0) == pytest.approx(6.0)


def test_it_is_zero_where_nothing_waits() -> None:
    scraped = Scraped()
    assert scraped.at(0.0) == 0
    scraped.at(2.0, 1.0)
    assert scraped.at(4.0) == 0
    assert scraped.at(60.0, waiting=1) == pytest.approx(56.0)


@given(st.integers(1, 100), st.lists(st.floats(0, 100), max_size=9), st.floats(0.01, 10))
def test_replicas_follow_the_time_in_the_queue(
    current: int, waits: list[float], target_s: float
) -> None:
    found = wanted(current, waits, target_s)
    mean_s = sum(waits) / len(waits) if waits else None
    assert 1 <= found <= 2 * current
    if mean_s is None or target_s / 4 < mean_s < target_s:
        assert found == current
    elif mean_s > target_s:
        assert found > current
    elif mean_s < target_s / 4:
        assert found == max(1, current - 1)


def test_the_policy_reads_what_replicas_report() -> None:
    class Context:
        current_num_replicas = 3
        aggregated_metrics = {"queue_s": {"one": 1.0, "two": 0.5, "three": 0.75}}

    assert QueueTimePolicy(0.5)(Context) == (pytest.approx(4.5), {})
    Context.aggregated_metrics = {}
    assert QueueTimePolicy(0.5)(Context) == (3, {})
