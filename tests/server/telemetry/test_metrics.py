"""What GET /metrics says: names and labels, few series, counts that only grow."""

import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from registry import ApiKeys, Batches, Jobs, RegistryUnavailable
from registry.jobs.workers import Workers
from server.telemetry.job_metrics import JobMetrics
from server.telemetry.metrics import BuildInfo, Metrics
from server.telemetry.observer import (
    CacheStats,
    LoadStats,
    Observer,
    PlanStats,
    ServingLoad,
    StepStats,
)

BUILD = BuildInfo("0.1.0", "demo", "sha256:12ab", "cpu", "2.13.0")


def built(max_adapters: int = 50) -> Metrics:
    metrics = Metrics(max_adapters)
    metrics.set_build(BUILD)
    return metrics


STEP = StepStats(
    0.02, "mixed", 12, 3, num_running=4, num_waiting=2, prompt_tokens=8, generated_tokens=4
)

# Every metric of the API's page that a server fills: family, type, labels.
EXPECTED = [
    ("overtone_requests", "counter", {"route", "code"}),
    ("overtone_requests_running", "gauge", set()),
    ("overtone_requests_waiting", "gauge", set()),
    ("overtone_time_to_first_token_seconds", "histogram", set()),
    ("overtone_inter_token_seconds", "histogram", set()),
    ("overtone_request_seconds", "histogram", set()),
    ("overtone_queue_seconds", "histogram", set()),
    ("overtone_prompt_tokens", "counter", set()),
    ("overtone_generation_tokens", "counter", set()),
    ("overtone_prefix_cached_tokens", "counter", set()),
    ("overtone_preemptions", "counter", set()),
    ("overtone_batch_rows", "histogram", set()),
    ("overtone_batch_adapters", "histogram", set()),
    ("overtone_step_seconds", "histogram", {"mode"}),
    ("overtone_adapter_requests", "counter", {"adapter"}),
    ("overtone_adapter_first_token_seconds", "histogram", {"adapter"}),
    ("overtone_coefficients_resident", "gauge", {"tier"}),
    ("overtone_coefficient_bytes", "gauge", {"tier"}),
    ("overtone_merged_resident", "gauge", set()),
    ("overtone_merged_bytes", "gauge", set()),
    ("overtone_cache_hits", "counter", {"cache"}),
    ("overtone_cache_misses", "counter", {"cache"}),
    ("overtone_cache_evictions", "counter", {"cache"}),
    ("overtone_materialize_seconds", "histogram", {"method"}),
    ("overtone_adapter_load_seconds", "histogram", set()),
    ("overtone_adapter_load_failures", "counter", {"reason"}),
    ("overtone_disk_free_bytes", "gauge", set()),
    ("overtone_disk_reserve_bytes", "gauge", set()),
    ("overtone_mode_requests", "counter", {"mode", "reason"}),
    ("overtone_planned_merges", "gauge", set()),
    ("overtone_planned_saving_ratio", "gauge", set()),
    ("overtone_registry_seconds", "histogram", {"op"}),
    ("overtone_registry_errors", "counter", {"op"}),
    ("overtone_build_info", "gauge", {"version", "base", "fingerprint", "device", "torch"}),
    ("overtone_canary_ok", "gauge", set()),
    ("overtone_batch_invariant", "gauge", set()),
    ("overtone_steps_recorded", "gauge", set()),
    ("overtone_jobs", "gauge", {"state"}),
    ("overtone_workers", "gauge", set()),
    ("overtone_api_key_expiry_timestamp_seconds", "gauge", set()),
    ("overtone_train_steps", "counter", set()),
    ("overtone_train_tokens", "counter", set()),
    ("overtone_train_loss", "gauge", set()),
    ("overtone_batches", "gauge", {"state"}),
    ("overtone_batch_requests", "counter", {"outcome"}),
    ("overtone_batch_requests_running", "gauge", set()),
    ("overtone_batch_requests_waiting", "gauge", set()),
    ("vllm:num_requests_running", "gauge", set()),
    ("vllm:num_requests_waiting", "gauge", set()),
    ("vllm:kv_cache_usage_perc", "gauge", set()),
    (
        "vllm:lora_requests_info",
        "gauge",
        {"max_lora", "running_lora_adapters", "waiting_lora_adapters"},
    ),
    ("vllm:cache_config_info", "gauge", {"block_size", "num_gpu_blocks"}),
]

LOAD = ServingLoad(frozenset({"poet"}), frozenset({"poet", "clerk"}), 1, 2, 0.25, 64, 32, 100)


@pytest.fixture
def metrics() -> Metrics:
    return built()


def families(metrics: Metrics) -> dict[str, Metric]:
    """Return what the library's own parser makes of the page, by family."""
    body, _ = metrics.render()
    return {family.name: family for family in text_string_to_metric_families(body.decode())}


def values(metrics: Metrics, sample: str) -> dict[tuple[str, ...], float]:
    """Return the value of every series of `sample`, by its label values, labels sorted by name."""
    found = (s for family in families(metrics).values() for s in family.samples)
    return {tuple(s.labels.values()): s.value for s in found if s.name == sample}


def value(metrics: Metrics, sample: str, *labels: str) -> float:
    return values(metrics, sample)[labels]


def fill(observer: Observer) -> None:
    """Tell each kind of thing once. (The annotation has mypy check that Metrics is an Observer.)"""
    observer.on_step(STEP)
    observer.on_cache(CacheStats("coefficients", 3, 9000, hits=7, misses=3, evictions=1))
    observer.on_placed(PlanStats("factored", "merging", num_planned=1, saving=0.02))
    observer.on_cache(CacheStats("merged", 1, 4_000_000, hits=5, misses=2, evictions=1))
    observer.on_load(LoadStats("fourierft", 0.03, materialise_s=0.02))
    observer.on_load_failed("damaged")
    observer.on_disk(1 << 30, 1 << 26)
    observer.on_first_token(0.2, queue_s=0.05, adapter="poet")
    observer.on_next_token(0.02)
    observer.on_request("/v1/completions", 200, 1.5)
    observer.on_adapter("poet")
    observer.on_registry("resolve", 0.001, ok=True)
    observer.on_canary(ok=True)
    observer.on_recording(ok=True)
    observer.on_rows(hold=True)
    observer.on_background(1, 2)
    observer.on_batch_request(is_good=True)


class OneJob:
    """What the registry says of jobs, or that it says nothing."""

    def __init__(self) -> None:
        self.is_down, self.asked = False, 0

    def counts(self) -> dict[str, int]:
        self.asked += 1
        if self.is_down:
            raise RegistryUnavailable("no answer")
        return {"running": 1}

    def totals(self) -> dict[str, float]:
        return {"steps": 5.0, "tokens": 70.0, "loss": 1.5}

    def alive(self) -> list[str]:
        return ["one", "two"]


class OneKey:
    """What the registry says of API keys."""

    def next_expiry(self, now: float) -> float:
        return now + 60.0


class OneBatch:
    """What the registry says of batches."""

    def counts(self) -> dict[str, int]:
        return {"in_progress": 3}


def refresh(training: JobMetrics, jobs: OneJob) -> None:
    """Read this registry."""
    batches, api_keys = cast(Batches, OneBatch()), cast(ApiKeys, OneKey())
    training.refresh(cast(Jobs, jobs), cast(Workers, jobs), batches, api_keys)


def fed() -> Metrics:
    metrics = built()
    fill(metrics)
    metrics.on_adapter("poet")
    metrics.load.take(LOAD)
    refresh(metrics.training, OneJob())
    return metrics


@pytest.mark.parametrize(("name", "kind", "labels"), EXPECTED, ids=[row[0] for row in EXPECTED])
def test_metric_has_its_name_type_and_labels(name: str, kind: str, labels: set[str]) -> None:
    family = families(fed())[name]
    assert family.type == kind
    assert family.documentation
    assert family.samples
    assert {label for s in family.samples for label in s.labels} - {"le"} == labels


def test_there_is_no_metric_beyond_the_documented_ones() -> None:
    assert set(families(fed())) == {name for name, _, _ in EXPECTED}


def test_every_metric_is_in_the_operators_table() -> None:
    page = (Path(__file__).parents[3] / "docs/operations.md").read_text()
    kinds = {"counter": "_total", "gauge": "", "histogram": ""}
    rows = {f"| `{name}{kinds[kind]}`" for name, kind, _ in EXPECTED}
    assert {row for row in rows if row not in page} == set()


def test_build_info_tells_what_runs(metrics: Metrics) -> None:
    [sample] = families(metrics)["overtone_build_info"].samples
    assert sample.value == 1
    assert sample.labels == {
        "version": "0.1.0",
        "base": "demo",
        "fingerprint": "sha256:12ab",
        "device": "cpu",
        "torch": "2.13.0",
    }


def test_build_info_is_replaced_once_the_base_is_known(metrics: Metrics) -> None:
    metrics.set_build(replace(BUILD, fingerprint="sha256:34cd", device="cuda:0"))
    [sample] = families(metrics)["overtone_build_info"].samples
    assert (sample.labels["fingerprint"], sample.labels["device"]) == ("sha256:34cd", "cuda:0")


def test_jobs_are_asked_for_once_a_second_and_forgotten_when_nobody_answers() -> None:
    now, jobs = [0.0], OneJob()
    training = JobMetrics(lambda: now[0], lambda: 1_000.0)
    for _ in range(5):
        refresh(training, jobs)
    assert jobs.asked == 1
    samples = {s.name: s.value for family in training.collect() for s in family.samples}
    assert samples["overtone_train_steps_total"] == 5
    assert samples["overtone_workers"] == 2
    assert samples["overtone_batches"] == 3
    assert samples["overtone_api_key_expiry_timestamp_seconds"] == 1_060
    now[0], jobs.is_down = 1.5, True
    refresh(training, jobs)
    assert jobs.asked == 2
    assert [s for family in training.collect() for s in family.samples] == []


def test_content_type_is_prometheus_text(metrics: Metrics) -> None:
    assert metrics.render()[1].startswith("text/plain; version=")


def test_step_moves_gauges_counters_and_histograms(metrics: Metrics) -> None:
    metrics.on_step(STEP)
    metrics.on_step(StepStats(0.01, "factored", 4, 2, 1, 0, 0, 4))
    assert value(metrics, "overtone_requests_running") == 1
    assert value(metrics, "overtone_requests_waiting") == 0
    assert value(metrics, "overtone_prompt_tokens_total") == 8
    assert value(metrics, "overtone_generation_tokens_total") == 8
    assert value(metrics, "overtone_batch_rows_sum") == 16
    assert value(metrics, "overtone_batch_adapters_sum") == 5
    assert values(metrics, "overtone_step_seconds_count") == {("mixed",): 1, ("factored",): 1}


def test_latencies_are_seconds(metrics: Metrics) -> None:
    metrics.on_first_token(0.2, queue_s=0.05)
    metrics.on_next_token(0.02)
    assert value(metrics, "overtone_time_to_first_token_seconds_sum") == pytest.approx(0.2)
    assert value(metrics, "overtone_queue_seconds_sum") == pytest.approx(0.05)
    assert value(metrics, "overtone_inter_token_seconds_sum") == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("overtone_time_to_first_token_seconds", 0.001, 60),
        ("overtone_inter_token_seconds", 0.001, 5),
        ("overtone_materialize_seconds", 0.001, 10),
    ],
)
def test_bounds_cover_the_promised_range(name: str, least: float, most: float) -> None:
    samples = families(fed())[name].samples
    bounds = [float(s.labels["le"]) for s in samples if s.name.endswith("_bucket")]
    assert bounds == sorted(bounds)
    assert bounds[0] == least
    assert bounds[-2:] == [most, float("inf")]


def test_probes_count_as_requests_but_not_in_the_request_time(metrics: Metrics) -> None:
    metrics.on_request("/health/live", 200, 0.001)
    metrics.on_request("/v1/completions", 503, 0.5)
    requests = values(metrics, "overtone_requests_total")
    assert requests == {("200", "/health/live"): 1, ("503", "/v1/completions"): 1}
    assert value(metrics, "overtone_request_seconds_sum") == pytest.approx(0.5)


def test_factored_load_is_not_a_materialisation(metrics: Metrics) -> None:
    metrics.on_load(LoadStats("loca", 0.01, materialise_s=None))
    assert value(metrics, "overtone_adapter_load_seconds_count") == 1
    assert values(metrics, "overtone_materialize_seconds_count") == {}


def test_modes_are_counted_with_their_reasons(metrics: Metrics) -> None:
    metrics.on_placed(PlanStats("factored", "merging", num_planned=1, saving=0.02))
    metrics.on_placed(PlanStats("merged", "planned", num_planned=2, saving=0.05))
    assert values(metrics, "overtone_mode_requests_total") == {
        ("factored", "merging"): 1,
        ("merged", "planned"): 1,
    }
    assert value(metrics, "overtone_planned_merges") == 2
    assert value(metrics, "overtone_planned_saving_ratio") == 0.05


def test_both_tiers_have_their_gauges(metrics: Metrics) -> None:
    metrics.on_cache(CacheStats("coefficients", 3, 9000, hits=7, misses=3, evictions=1))
    metrics.on_cache(CacheStats("host", 2, 6000, hits=1, misses=2, evictions=0))
    resident = {("device",): 3, ("host",): 2}
    assert values(metrics, "overtone_coefficients_resident") == resident
    assert values(metrics, "overtone_coefficient_bytes") == {("device",): 9000, ("host",): 6000}


def test_registry_errors_are_zero_before_the_first(metrics: Metrics) -> None:
    metrics.on_registry("publish", 0.01, ok=True)
    assert value(metrics, "overtone_registry_errors_total", "publish") == 0
    metrics.on_registry("publish", 5.0, ok=False)
    assert value(metrics, "overtone_registry_errors_total", "publish") == 1
    assert value(metrics, "overtone_registry_seconds_count", "publish") == 2


def test_canary_is_unknown_until_it_ran(metrics: Metrics) -> None:
    assert values(metrics, "overtone_canary_ok") == {}
    metrics.on_canary(ok=False)
    assert value(metrics, "overtone_canary_ok") == 0
    metrics.on_canary(ok=True)
    assert value(metrics, "overtone_canary_ok") == 1


def test_caches_are_there_before_their_first_use(metrics: Metrics) -> None:
    assert values(metrics, "overtone_cache_hits_total") == {
        ("coefficients",): 0,
        ("host",): 0,
        ("merged",): 0,
    }
    assert value(metrics, "overtone_coefficients_resident", "device") == 0


def test_cache_counts_never_fall_when_reports_overtake_each_other(metrics: Metrics) -> None:
    newer = CacheStats("merged", 2, 800, hits=10, misses=4, evictions=2)
    older = CacheStats("merged", 3, 1200, hits=9, misses=4, evictions=1)
    metrics.on_cache(newer)
    metrics.on_cache(older)
    assert value(metrics, "overtone_cache_hits_total", "merged") == 10
    assert value(metrics, "overtone_cache_evictions_total", "merged") == 2


def test_ten_thousand_adapters_get_at_most_fifty_series(metrics: Metrics) -> None:
    for _ in range(3):
        for i in range(10_000):
            metrics.on_adapter(f"adapter-{i}")
    series = values(metrics, "overtone_adapter_requests_total")
    assert len(series) <= 51
    assert ("other",) in series
    assert sum(series.values()) == 30_000
    assert len(metrics.render()[0]) < 50_000


def test_busy_adapter_gets_its_series_among_many_strays(metrics: Metrics) -> None:
    for i in range(10_000):
        metrics.on_adapter(f"stray-{i}")
        if i % 5 == 0:
            metrics.on_adapter("busy")
    series = values(metrics, "overtone_adapter_requests_total")
    assert series[("busy",)] > 1900
    assert len(series) < 51  # the strays did not take the series that are still free


def test_adapter_totals_never_go_backwards(metrics: Metrics) -> None:
    before: dict[tuple[str, ...], float] = {}
    total = 0
    for i in range(400):  # the traffic moves on: other names are busy in each round
        for j in range(40):
            metrics.on_adapter(f"adapter-{(i // 40) * 20 + j % 20}")
            total += 1
        now = values(metrics, "overtone_adapter_requests_total") if i % 20 == 0 else before
        assert all(now[labels] >= count for labels, count in before.items())
        before = now
    assert sum(values(metrics, "overtone_adapter_requests_total").values()) == total


def test_adapter_name_cannot_break_the_page(metrics: Metrics) -> None:
    hostile = 'a"} 1\nfake_metric{x="\\'
    metrics.on_adapter(hostile)
    assert value(metrics, "overtone_adapter_requests_total", hostile) == 1
    assert "fake_metric" not in families(metrics)


def test_two_servers_in_one_process_do_not_share_counts(metrics: Metrics) -> None:
    other = built()
    metrics.on_adapter("poet")
    assert values(other, "overtone_adapter_requests_total") == {}


def test_no_created_series(metrics: Metrics) -> None:
    fill(metrics)
    assert b"_created" not in metrics.render()[0]


def in_threads(jobs: Iterable[threading.Thread]) -> None:
    threads = list(jobs)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_counts_are_exact_under_threads_and_renders() -> None:
    metrics = built(max_adapters=8)
    failures: list[BaseException] = []

    def tell(worker: int) -> None:
        try:
            for i in range(1000):
                fill(metrics)
                metrics.on_adapter(f"adapter-{worker}-{i % 50}")
                if i % 250 == 0:
                    families(metrics)
        except BaseException as error:
            failures.append(error)

    in_threads(threading.Thread(target=tell, args=(worker,)) for worker in range(4))
    assert failures == []
    assert value(metrics, "overtone_inter_token_seconds_count") == 4000
    assert value(metrics, "overtone_generation_tokens_total") == 16_000
    assert value(metrics, "overtone_requests_total", "200", "/v1/completions") == 4000
    series = values(metrics, "overtone_adapter_requests_total")
    assert sum(series.values()) == 8000
    assert len(series) <= 9
