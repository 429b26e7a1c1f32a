"""The server's Prometheus metrics: counts and times of events.

Current values are in state_metrics.py, those of jobs in job_metrics.py.

`Metrics` is the `Observer` of observer.py: the parts of the server report to it, and `GET /metrics`
renders it. No label has values from requests, except for adapters' names, and only some of those
get a series: the number of series does not grow with the adapters.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    generate_latest,
)
from prometheus_client.core import Metric

from server.telemetry.activity import AcceptedStats, Activity
from server.telemetry.job_metrics import JobMetrics
from server.telemetry.label_limit import LabelLimit
from server.telemetry.load_metrics import LoadMetrics
from server.telemetry.observer import (
    CacheStats,
    LoadFault,
    LoadStats,
    Observer,
    PlanStats,
    StepStats,
)
from server.telemetry.state_metrics import StateMetrics

# Bounds in seconds. A quantile is interpolated between two: they are closest at usual values.
_FIRST_TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SMALL_S = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2)
_ADAPTER_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)  # few: one histogram per adapter
_NEXT_TOKEN_S = (*_SMALL_S, 0.3, 0.5, 1, 2, 5)
_STEP_S = (0.0005, *_NEXT_TOKEN_S)
_REQUEST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_LOAD_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_REGISTRY_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_ADAPTERS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class BuildInfo:
    """The build and its base, as the labels of `overtone_build_info`.

    Args:
        version: of Overtone.
        base: the resident model's name.
        fingerprint: the base's.
        device: `cpu`, or the accelerator's name.
        torch: version of torch.
    """

    version: str
    base: str
    fingerprint: str
    device: str
    torch: str


class Metrics(Observer):
    """An `Observer` that counts, for one server; safe from any thread.

    Args:
        max_adapters: adapters that get a series of their own; the rest share `other`.
        clock: seconds since 1970.
    """

    def __init__(self, max_adapters: int = 50, clock: Callable[[], float] = time.time) -> None:
        self._registry = _Registry()
        self._num_preemptions = 0
        self._names = LabelLimit(max_adapters)
        self._state = StateMetrics()
        self._registry.register(self._state)
        self.training = JobMetrics()
        self._registry.register(self.training)
        self.load = LoadMetrics(clock)
        self.activity = Activity()
        self._registry.register(self.load)
        self._build = Info("overtone_build", "What is running.", registry=self._registry)
        self._make_request_metrics()
        self._make_step_metrics()
        self._make_adapter_metrics()
        self._make_plan_metrics()
        self._make_registry_metrics()
        self._make_batch_metrics()

    def render(self) -> tuple[bytes, str]:
        """Return the body of GET /metrics and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def render_load(self) -> tuple[bytes, str]:
        """Return the same of what schedulers read alone."""
        return generate_latest(self.load), CONTENT_TYPE_LATEST

    def set_build(self, build: BuildInfo) -> None:
        """Set the labels of `overtone_build_info`, once the base is loaded."""
        self._build.info(asdict(build))

    def on_queue(self, num_running: int, num_waiting: int) -> None:
        self._running.set(num_running)
        self._waiting.set(num_waiting)

    def on_background(self, num_running: int, num_waiting: int) -> None:
        self._background_running.set(num_running)
        self._background_waiting.set(num_waiting)

    def on_batch_request(self, is_good: bool) -> None:
        self._batch_requests.labels("completed" if is_good else "failed").inc()

    def on_step(self, stats: StepStats) -> None:
        self._running.set(stats.num_running)
        self._waiting.set(stats.num_waiting)
        self._prompt_tokens.inc(stats.prompt_tokens)
        self._generation_tokens.inc(stats.generated_tokens)
        self._cached_tokens.inc(stats.cached_tokens)
        self._preemptions.inc(stats.num_preemptions - self._num_preemptions)
        self._num_preemptions = stats.num_preemptions
        self._batch_rows.observe(stats.num_rows)
        self._batch_adapters.observe(stats.num_adapters)
        self._step.labels(stats.mode).observe(stats.seconds)

    def on_cache(self, stats: CacheStats) -> None:
        self._state.record_cache(stats)

    def on_load(self, stats: LoadStats) -> None:
        self._load.observe(stats.seconds)
        if stats.materialise_s is not None:
            self._materialize.labels(stats.method).observe(stats.materialise_s)

    def on_load_failed(self, fault: LoadFault) -> None:
        self._load_failures.labels(fault).inc()

    def on_disk(self, free_bytes: int | None, reserve_bytes: int) -> None:
        self._state.record_disk(free_bytes, reserve_bytes)

    def on_placed(self, stats: PlanStats) -> None:
        self._placed.labels(stats.mode, stats.reason).inc()
        self._planned.set(stats.num_planned)
        self._saving.set(stats.saving)

    def on_first_token(self, seconds: float, queue_s: float, adapter: str = "") -> None:
        self._first_token.observe(seconds)
        self.activity.on_first_token(adapter, seconds)
        if adapter:
            self._adapter_first_token.labels(self._names.given(adapter)).observe(seconds)
        self._queue.observe(queue_s)

    def on_next_token(self, seconds: float) -> None:
        self._next_token.observe(seconds)

    def on_request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        if route.startswith("/v1/"):  # probes and scrapes would hide the callers' requests
            self._request.observe(seconds)

    def on_accepted(self, stats: AcceptedStats) -> None:
        self.activity.on_accepted(stats)

    def on_ended(self, adapter: str, generated_tokens: int) -> None:
        self.activity.on_ended(adapter, generated_tokens)

    def on_adapter(self, name: str) -> None:
        self._adapter_requests.labels(self._names.label_of(name)).inc()

    def on_registry(self, op: str, seconds: float, ok: bool) -> None:
        self._registry_s.labels(op).observe(seconds)
        # Adding 0 creates the series, so that the first error is seen as a rise from 0.
        self._registry_errors.labels(op).inc(0 if ok else 1)

    def on_canary(self, ok: bool) -> None:
        self._state.record_canary(ok)

    def on_rows(self, hold: bool) -> None:
        self._state.record_rows(hold)

    def on_recording(self, ok: bool) -> None:
        self._state.record_recording(ok)

    def _make_request_metrics(self) -> None:
        self._requests = self._counter(
            "requests", "HTTP requests answered, by route and status.", "route", "code"
        )
        self._request = self._histogram(
            "request_seconds", "Time of a request under /v1/, to the end of its answer.", _REQUEST_S
        )
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "From arrival to the first token.", _FIRST_TOKEN_S
        )
        self._next_token = self._histogram(
            "inter_token_seconds", "Between two tokens of one sequence.", _NEXT_TOKEN_S
        )
        self._queue = self._histogram(
            "queue_seconds", "The part of the time to first token spent waiting.", _FIRST_TOKEN_S
        )

    def _make_step_metrics(self) -> None:
        self._running = self._gauge("requests_running", "Sequences that hold cache pages.")
        self._waiting = self._gauge("requests_waiting", "Sequences that wait for cache pages.")
        self._prompt_tokens = self._counter("prompt_tokens", "Prompt tokens computed.")
        self._generation_tokens = self._counter("generation_tokens", "Tokens sampled.")
        self._cached_tokens = self._counter(
            "prefix_cached_tokens", "Prompt tokens found computed: kept prefixes."
        )
        self._preemptions = self._counter(
            "preemptions", "Sequences that gave up their cache pages and ran again later."
        )
        self._batch_rows = self._histogram("batch_rows", "Token rows of a step.", _ROWS)
        self._batch_adapters = self._histogram(
            "batch_adapters", "Different adapters in a step.", _ADAPTERS
        )
        self._step = self._histogram(
            "step_seconds", "Time of an engine step, by what its rows asked for.", _STEP_S, "mode"
        )

    def _make_adapter_metrics(self) -> None:
        self._adapter_requests = self._counter(
            "adapter_requests", "Generations accepted: the busiest adapters, and other.", "adapter"
        )
        self._adapter_first_token = self._histogram(
            "adapter_first_token_seconds",
            "From arrival to the first token: the busiest adapters, and other.",
            _ADAPTER_S,
            "adapter",
        )
        self._load = self._histogram(
            "adapter_load_seconds", "Bringing an adapter from its blob into memory.", _LOAD_S
        )
        self._load_failures = self._counter(
            "adapter_load_failures", "Loads of adapters that failed, by why.", "reason"
        )
        for fault in get_args(LoadFault):  # the first one is seen as a rise from 0
            self._load_failures.labels(fault)
        self._materialize = self._histogram(
            "materialize_seconds", "Building one adapter's merged weights.", _LOAD_S, "method"
        )

    def _make_plan_metrics(self) -> None:
        self._placed = self._counter(
            "mode_requests", "Sequences for adapters, by mode and why.", "mode", "reason"
        )
        self._planned = self._gauge("planned_merges", "Adapters that the plan wants merged.")
        self._saving = self._gauge(
            "planned_saving_ratio", "Share of the modelled step time that the plan saves."
        )

    def _make_batch_metrics(self) -> None:
        self._background_running = self._gauge(
            "batch_requests_running", "Sequences of batches that hold cache pages."
        )
        self._background_waiting = self._gauge(
            "batch_requests_waiting", "Sequences or inputs of batches that wait for room."
        )
        self._batch_requests = self._counter(
            "batch_requests", "Requests of batches answered here, by how they ended.", "outcome"
        )
        for outcome in ("completed", "failed"):  # the first one is seen as a rise from 0
            self._batch_requests.labels(outcome)

    def _make_registry_metrics(self) -> None:
        self._registry_s = self._histogram(
            "registry_seconds", "Time of a registry operation.", _REGISTRY_S, "op"
        )
        self._registry_errors = self._counter(
            "registry_errors", "Registry operations that failed.", "op"
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"overtone_{name}", text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"overtone_{name}", text, registry=self._registry)

    def _histogram(
        self, name: str, text: str, bounds: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(f"overtone_{name}", text, labels, registry=self._registry, buckets=bounds)


class _Registry(CollectorRegistry):
    """Without the library's `_created` samples, which double the series and are not used."""

    def collect(self) -> Iterable[Metric]:
        for metric in super().collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric
