"""What schedulers read: names and labels as in vLLM, labels of bounded length."""

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from server.telemetry.load_metrics import MAX_LABEL_CHARS
from server.telemetry.metrics import Metrics
from server.telemetry.observer import ServingLoad

RUNNING, WAITING = "running_lora_adapters", "waiting_lora_adapters"


def families(metrics: Metrics) -> dict[str, Metric]:
    body, _ = metrics.render_load()
    return {family.name: family for family in text_string_to_metric_families(body.decode())}


def load(running: set[str], waiting: set[str]) -> ServingLoad:
    return ServingLoad(frozenset(running), frozenset(waiting), 3, 5, 0.25, 64, 32, 1000)


def test_numbers_have_the_names_that_schedulers_take_by_default() -> None:
    metrics = Metrics()
    metrics.load.take(load(set(), set()))
    found = {name: family.samples for name, family in families(metrics).items()}
    assert {name: samples[0].value for name, samples in found.items() if len(samples) == 1} | {
        "vllm:lora_requests_info": 0
    } == {
        "vllm:num_requests_running": 3,
        "vllm:num_requests_waiting": 5,
        "vllm:kv_cache_usage_perc": 0.25,
        "vllm:lora_requests_info": 0,  # the time
        "vllm:cache_config_info": 1,
    }
    assert found["vllm:cache_config_info"][0].labels == {
        "block_size": "32",
        "num_gpu_blocks": "1000",
    }


def test_adapters_are_lists_by_commas_and_the_value_is_the_time() -> None:
    now = [1000.0]
    metrics = Metrics(clock=lambda: now[0])
    metrics.load.take(load({"poet", "org/clerk"}, {"poet", "judge"}))
    [sample] = families(metrics)["vllm:lora_requests_info"].samples
    assert sample.labels == {"max_lora": "64", RUNNING: "org/clerk,poet", WAITING: "judge"}
    assert sample.value == 1000
    now[0] = 1001.5
    [sample] = families(metrics)["vllm:lora_requests_info"].samples
    assert sample.value == 1001.5


def test_lists_are_cut_between_names() -> None:
    metrics = Metrics()
    names = {f"{number:04}".ljust(96, "x") for number in range(1000)}
    metrics.load.take(load(names, set()))
    [sample] = families(metrics)["vllm:lora_requests_info"].samples
    shown = sample.labels[RUNNING]
    assert MAX_LABEL_CHARS - 97 <= len(shown) <= MAX_LABEL_CHARS
    assert set(shown.split(",")) <= names


def test_one_name_fits() -> None:
    metrics = Metrics()
    metrics.load.take(load({"x" * 96}, set()))
    [sample] = families(metrics)["vllm:lora_requests_info"].samples
    assert sample.labels[RUNNING] == "x" * 96


def test_there_is_no_sample_before_the_start() -> None:
    assert [s for family in families(Metrics()).values() for s in family.samples] == []
