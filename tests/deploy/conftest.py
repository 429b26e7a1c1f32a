"""A real Prometheus with the shipped configuration, pointed at any server's /metrics."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
SCRAPE = "250ms"
#: What its Prometheus sends; servers without keys ask for none.
METRICS_KEY = "a1-metrics"
START_TIMEOUT_S = 20.0
POLL_S = 0.05


class Prometheus:
    """The HTTP API of one that runs."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **parameters: str) -> Any:
        """Return the `data` of an answer whose status is success; anything else fails the test."""
        try:
            with urlopen(f"{self._url}{path}?{urlencode(parameters)}", timeout=5) as answer:
                body = json.load(answer)
        except HTTPError as error:
            raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from error
        assert body["status"] == "success", body
        return body["data"]

    def query(self, expression: str) -> list[float]:
        """Return the values of an instant query, one for each series."""
        return [value for _, value in self.series(expression)]

    def series(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the value of each series of an instant query."""
        data = self.get("/api/v1/query", query=expression)
        assert data["resultType"] == "vector"
        return [(each["metric"], float(each["value"][1])) for each in data["result"]]

    def has_scraped(self) -> bool:
        """Return whether its target was read without an error."""
        try:
            targets = self.get("/api/v1/targets")["activeTargets"]
        except (AssertionError, URLError, ConnectionError):
            return False
        return [target["health"] for target in targets] == ["up"]


@pytest.fixture
def scraped(tmp_path: Path) -> Iterator[Callable[[str], Prometheus]]:
    """Give a function that starts a Prometheus which scrapes the server at a URL."""
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(running_prometheus(url, tmp_path))


@contextmanager
def running_prometheus(url: str, folder: Path) -> Iterator[Prometheus]:
    """Run it until the block ends, however that ends; the target is read when the block begins."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs Debian's prometheus")
    address = f"127.0.0.1:{free_port()}"
    command = [
        program,
        f"--config.file={config_for(url, folder)}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        prometheus = Prometheus(f"http://{address}")
        wait_until_scraped(prometheus, process, log)
        yield prometheus
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_scraped(
    prometheus: Prometheus, process: "subprocess.Popen[bytes]", log: Path
) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not prometheus.has_scraped():
        assert process.poll() is None, f"prometheus ended: {log.read_text()}"
        assert time.monotonic() < deadline, f"no scrape in {START_TIMEOUT_S} s: {log.read_text()}"
        time.sleep(POLL_S)


def config_for(url: str, folder: Path) -> Path:
    """Return the shipped configuration with another target and shorter intervals, in `folder`."""
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    config["global"].update(
        scrape_interval=SCRAPE, scrape_timeout=SCRAPE, evaluation_interval=SCRAPE
    )
    [job] = config["scrape_configs"]
    key = folder / "metrics-key"
    key.write_text(METRICS_KEY)
    job["authorization"]["credentials_file"] = str(key)
    [static] = job["static_configs"]
    static["targets"] = [urlsplit(url).netloc]
    for rules in config["rule_files"]:
        shutil.copy(DEPLOY / rules, folder)
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
