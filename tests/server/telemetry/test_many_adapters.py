"""The page of GET /metrics under the traffic of 100,000 adapters: its size, and its time."""

import time
from itertools import accumulate
from random import Random

from prometheus_client.parser import text_string_to_metric_families

from server.telemetry.metrics import Metrics

NUM_ADAPTERS, NUM_REQUESTS = 100_000, 20_000
MAX_BYTES, MAX_S = 200_000, 0.020


def name_of(number: int) -> str:
    """Return a name of the most characters that one may have."""
    return f"adapter-{number}-".ljust(96, "x")


def told() -> Metrics:
    """Return the metrics after requests for every adapter, and many more for few of them."""
    metrics = Metrics()
    random = Random(0)
    weights = list(accumulate(1 / rank for rank in range(1, NUM_ADAPTERS + 1)))
    zipf = random.choices(range(NUM_ADAPTERS), cum_weights=weights, k=NUM_REQUESTS)
    for number in [*zipf, *range(NUM_ADAPTERS)]:
        metrics.on_adapter(name_of(number))
        metrics.on_first_token(0.02, 0.001, name_of(number))
    return metrics


def processor_s(metrics: Metrics) -> float:
    """Return the processor's time of one rendering: other programs may run meanwhile."""
    started = time.thread_time()
    metrics.render()
    return time.thread_time() - started


def test_the_page_stays_small_and_quick_and_names_the_busiest() -> None:
    metrics = told()
    body, _ = metrics.render()
    assert len(body) <= MAX_BYTES
    assert min(processor_s(metrics) for _ in range(5)) <= MAX_S
    families = {f.name: f for f in text_string_to_metric_families(body.decode())}
    for family, ending in (
        ("overtone_adapter_requests", "_total"),
        ("overtone_adapter_first_token_seconds", "_count"),
    ):
        samples = [s for s in families[family].samples if s.name.endswith(ending)]
        counts = {s.labels["adapter"]: s.value for s in samples}
        assert len(counts) <= 51
        assert {name_of(number) for number in range(10)} <= set(counts)
        assert sum(counts.values()) == NUM_REQUESTS + NUM_ADAPTERS
