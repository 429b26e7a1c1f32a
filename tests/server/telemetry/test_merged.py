from prometheus_client.parser import text_string_to_metric_families

from server.telemetry.merged import merged
from server.telemetry.metrics import Metrics

Sample = tuple[str, tuple[tuple[str, str], ...], float]


def samples(text: str) -> list[Sample]:
    families = text_string_to_metric_families(text)
    return sorted(
        (sample.name, tuple(sorted(sample.labels.items())), sample.value)
        for family in families
        for sample in family.samples
    )


def named(found: list[Sample], replica: str) -> list[Sample]:
    return [
        (name, tuple(sorted((*labels, ("replica", replica)))), value)
        for name, labels, value in found
    ]


def scraped(waits: float) -> str:
    metrics = Metrics()
    metrics.on_request("/v1/completions", 200, 1.0)
    metrics.on_first_token(waits + 0.1, queue_s=waits, adapter='a"b\\c')
    metrics.on_canary(True)
    return metrics.render()[0].decode()


def test_every_sample_of_every_server_is_there_under_its_name() -> None:
    one, two = scraped(1.0), scraped(2.0)
    body, content_type = merged({"one": one, "two": two})
    together = samples(body.decode())
    assert together == sorted(named(samples(one), "one") + named(samples(two), "two"))
    assert content_type.startswith("text/plain")


def test_every_family_is_described_once() -> None:
    lines = merged({"one": scraped(1.0), "two": scraped(2.0)})[0].decode().splitlines()
    described = [line for line in lines if line.startswith("# TYPE")]
    assert described
    assert len(described) == len(set(described))


def test_of_no_server_there_is_nothing() -> None:
    assert merged({})[0] == b""
