"""Metrics that are current values, not events: caches, the disk, and what a start has found."""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from server.telemetry.observer import CacheStats


class StateMetrics(Collector):
    """The values as they were last reported; safe from any thread.

    All caches are there from the start, at zero. The canary has no sample until it has run, so
    that "not yet" is not "failed".
    """

    def __init__(self) -> None:
        self._caches = {
            name: CacheStats(name, 0, 0, 0, 0, 0) for name in ("coefficients", "host", "merged")
        }
        self._canary: bool | None = None
        self._rows: bool | None = None
        self._recording: bool | None = None
        self._free_bytes: int | None = None
        self._reserve_bytes: int | None = None
        self._lock = threading.Lock()

    def record_cache(self, stats: CacheStats) -> None:
        """Take over a cache's statistics; if two reports cross, the higher counts are kept."""
        with self._lock:
            before = self._caches.get(stats.cache, stats)
            self._caches[stats.cache] = replace(
                stats,
                hits=max(stats.hits, before.hits),
                misses=max(stats.misses, before.misses),
                evictions=max(stats.evictions, before.evictions),
            )

    def record_canary(self, ok: bool) -> None:
        """Take over whether the canary passed."""
        self._canary = ok

    def record_rows(self, hold: bool) -> None:
        """Take over whether answers' bits do not depend on their neighbours."""
        self._rows = hold

    def record_recording(self, ok: bool) -> None:
        """Take over whether steps are recorded on a GPU."""
        self._recording = ok

    def record_disk(self, free_bytes: int | None, reserve_bytes: int) -> None:
        """Take over the disk's room, and how much of it requests leave free."""
        self._free_bytes, self._reserve_bytes = free_bytes, reserve_bytes

    def collect(self) -> Iterator[Metric]:
        """Yield the families; those that were never reported have no samples."""
        yield from self._memory()
        yield from self._checks()
        free, reserve = self._free_bytes, self._reserve_bytes
        yield _gauge("disk_free_bytes", "Bytes that the store's or registry's disk takes.", free)
        yield _gauge("disk_reserve_bytes", "Bytes below which nothing is written.", reserve)

    def _memory(self) -> Iterator[Metric]:
        with self._lock:
            caches = dict(self._caches)
        coefficients, merged = caches["coefficients"], caches["merged"]
        tiers = {"device": coefficients, "host": caches["host"]}
        counts = {tier: stats.num_entries for tier, stats in tiers.items()}
        sizes = {tier: stats.size_bytes for tier, stats in tiers.items()}
        yield _gauges("coefficients_resident", "Adapters in memory.", "tier", counts)
        yield _gauges("coefficient_bytes", "Bytes of their tensors.", "tier", sizes)
        yield _gauge("merged_resident", "Merged weights in memory.", merged.num_entries)
        yield _gauge("merged_bytes", "Bytes of these weights.", merged.size_bytes)
        for count in ("hits", "misses", "evictions"):
            family = CounterMetricFamily(
                f"overtone_cache_{count}", f"Cache {count} since the start.", labels=["cache"]
            )
            for name, stats in caches.items():
                family.add_metric([name], getattr(stats, count))
            yield family

    def _checks(self) -> Iterator[Metric]:
        yield _gauge("canary_ok", "1 if the transforms are right, 0 if not.", self._canary)
        yield _gauge(
            "batch_invariant",
            "1 if an answer's bits do not depend on its neighbours, measured at start; 0 if not.",
            self._rows,
        )
        yield _gauge(
            "steps_recorded",
            "1 if steps are recorded on this GPU, 0 if that has failed; absent on a CPU.",
            self._recording,
        )


def _gauge(name: str, text: str, value: float | None) -> Metric:
    """Return a gauge as it is rendered; without a value it has no sample."""
    metric = Metric(f"overtone_{name}", text, "gauge")
    if value is not None:
        metric.add_sample(metric.name, {}, value)
    return metric


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """Return a gauge with one sample per value of its label."""
    metric = Metric(f"overtone_{name}", text, "gauge")
    for value, number in values.items():
        metric.add_sample(metric.name, {label: value}, number)
    return metric
