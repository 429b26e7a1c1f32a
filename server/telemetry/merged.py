"""The metrics of several servers as one text: each sample has the name of its server."""

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

#: The label with the server's name.
REPLICA = "replica"


class _Given(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def merged(texts: Mapping[str, str]) -> tuple[bytes, str]:
    """Return all samples of all texts, and their content type.

    Args:
        texts: server's name -> its metrics in Prometheus' text format.
    """
    families: dict[str, Metric] = {}
    for server, text in texts.items():
        for found in text_string_to_metric_families(text):
            made = Metric(found.name, found.documentation, found.type)
            family = families.setdefault(found.name, made)
            for sample in found.samples:
                labels = {**sample.labels, REPLICA: server}
                family.add_sample(sample.name, labels, sample.value, sample.timestamp)
    registry = CollectorRegistry()
    registry.register(_Given(families.values()))
    return generate_latest(registry), CONTENT_TYPE_LATEST
