"""The metrics of jobs, batches and API keys, read from the registry at each `GET /metrics`.

Jobs run in workers, which may be on other machines and serve no metrics; the registry has their
sums, so every server shows the same. One series a state: few series, whatever is trained.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from registry import ApiKeys, Batches, Jobs, RegistryError
from registry.jobs.workers import Workers

_FRESH_S = 1.0


class JobMetrics(Collector):
    """Holds the jobs' numbers, at most a second old; without a registry it has none.

    Args:
        clock: a monotonic clock in seconds.
        date: seconds since 1970.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, date: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._date = date
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._counts: Mapping[str, int] = {}
        self._totals: Mapping[str, float] = {}
        self._num_workers: int | None = None
        self._batches: Mapping[str, int] = {}
        self._key_expiry: float | None = None

    def refresh(self, jobs: Jobs, workers: Workers, batches: Batches, api_keys: ApiKeys) -> None:
        """Read the registry, at most once a second, however often it is scraped."""
        with self._lock:
            if self._clock() < self._read_at + _FRESH_S:
                return
            try:
                self._counts = {str(state): count for state, count in jobs.counts().items()}
                self._totals = jobs.totals()
                self._num_workers = len(workers.alive())
                self._batches = {str(state): n for state, n in batches.counts().items()}
                self._key_expiry = api_keys.next_expiry(self._date())
            except RegistryError:  # old numbers would look like current ones
                self._counts, self._totals, self._num_workers = {}, {}, None
                self._batches, self._key_expiry = {}, None
            self._read_at = self._clock()

    def collect(self) -> Iterator[Metric]:
        """Yield the families, empty ones too, so that their types are always known."""
        states = GaugeMetricFamily("overtone_jobs", "Training jobs by state.", labels=["state"])
        for state, count in self._counts.items():
            states.add_metric([state], count)
        yield states
        batches = GaugeMetricFamily("overtone_batches", "Batches by state.", labels=["state"])
        for state, count in self._batches.items():
            batches.add_metric([state], count)
        yield batches
        workers = GaugeMetricFamily("overtone_workers", "Trainer workers that are alive.")
        if self._num_workers is not None:
            workers.add_metric([], self._num_workers)
        yield workers
        expiry = GaugeMetricFamily(
            "overtone_api_key_expiry_timestamp_seconds", "When the next API key expires."
        )
        if self._key_expiry is not None:
            expiry.add_metric([], self._key_expiry)
        yield expiry
        totals = self._totals
        yield _counter("steps", "Optimiser steps of all jobs.", totals.get("steps"))
        yield _counter("tokens", "Tokens trained on by all jobs.", totals.get("tokens"))
        loss = GaugeMetricFamily("overtone_train_loss", "The latest step's loss, of any job.")
        if "loss" in totals:
            loss.add_metric([], totals["loss"])
        yield loss


def _counter(name: str, text: str, value: float | None) -> Metric:
    family = CounterMetricFamily(f"overtone_train_{name}", text)
    if value is not None:
        family.add_metric([], value)
    return family
