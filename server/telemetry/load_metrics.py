"""What schedulers in front of several servers read: queue, cache use, adapters that are in use.

In vLLM's form and names, which the Gateway API inference extension and llm-d take by default
(Model Server Protocol, proposal 003): a scheduler sends a request where its adapter is in use.
"""

import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from server.telemetry.observer import ServingLoad

#: Of one label's value. Names beyond it are left out: a list is cut between names, never in one.
MAX_LABEL_CHARS = 4096

_TEXTS = {
    "num_requests_running": "Sequences that run.",
    "num_requests_waiting": "Sequences or inputs that wait.",
    "kv_cache_usage_perc": "Share of the cache that sequences hold, 0 to 1.",
    "lora_requests_info": "Adapters in use, and how many can be; the value is the time.",
    "cache_config_info": "Tokens of a page and number of pages; always 1.",
}


class LoadMetrics(Collector):
    """Holds one server's load as of the scrape that is being answered; none before the start.

    Args:
        clock: seconds since 1970; of several series schedulers take the one with the latest.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._load: ServingLoad | None = None

    def take(self, load: ServingLoad) -> None:
        """Take over the load; safe from any thread."""
        self._load = load

    def collect(self) -> Iterator[Metric]:
        """Yield the families; without a load they have no samples."""
        families = {name: Metric(f"vllm:{name}", text, "gauge") for name, text in _TEXTS.items()}
        if self._load is not None:
            for name, labels, value in self._samples(self._load):
                families[name].add_sample(families[name].name, labels, value)
        yield from families.values()

    def _samples(self, load: ServingLoad) -> Iterator[tuple[str, dict[str, str], float]]:
        """Yield name, labels and value of each."""
        yield "num_requests_running", {}, load.num_running
        yield "num_requests_waiting", {}, load.num_waiting
        yield "kv_cache_usage_perc", {}, load.kv_usage
        adapters = {
            "max_lora": str(load.max_adapters),
            "running_lora_adapters": _joined(load.running),
            "waiting_lora_adapters": _joined(load.waiting - load.running),
        }
        yield "lora_requests_info", adapters, self._clock()
        sizes = {"block_size": str(load.page_size), "num_gpu_blocks": str(load.num_pages)}
        yield "cache_config_info", sizes, 1


def _joined(names: Iterable[str]) -> str:
    """Return the names by commas, as many as fit."""
    text = ",".join(sorted(names))
    return text if len(text) <= MAX_LABEL_CHARS else text[: text.rindex(",", 0, MAX_LABEL_CHARS)]
