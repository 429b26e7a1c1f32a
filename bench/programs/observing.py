"""What it costs to be watched: a server under load that is scraped, and one that sends traces.

What: (scrapes) tokens/s of one server while GET /metrics is asked every five seconds, and twenty
times as often, against rounds without, in turns; each round's are the same requests, nothing of
which is cached, for adapters with the longest names. The ratio is the median of the rounds',
`cpu_ratio` that of tokens for a second of the server's processor time. (traces) processor time of a
request's spans, made and sent to a collector, against all that the request takes of the server's;
two servers, one with traces, differ by more than that without any.
Why: figures about a server are worth at most a hundredth of its work. Target: 0.99.

    overtone bench observing [--only scrapes traces] [--rounds 9] [--requests 96]
"""

import asyncio
import http.client
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from adapters_core.base.spec import BaseSpec
from bench.lib.load import Lengths, Load
from bench.lib.load_runner import Ending, Model, Target, closed_loop, connected
from bench.lib.program import Parser
from bench.lib.servers import Files, Served, base_on_disk, served, stop
from bench.lib.timing import report
from overtone_client import Client
from server.telemetry.traces import CallTrace, SequenceTimes, open_traces

_PARTS = ("scrapes", "traces")
_N = 1000
#: More than have a series of their own, and names as long as they may be.
_ADAPTERS, _NAME_CHARS = 60, 96
#: Requests whose spans wait for the exporter at a time: it drops what is beyond 2048 spans.
_TRACED = 300
#: Of a call, as many as a server's have.
_ATTRIBUTES = {f"gen_ai.some.attribute_{number}": f"value {number}" for number in range(14)}
_COLLECTOR = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): ...
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
#: Pauses between two scrapes, by the contender's name.
_SCRAPES = {"off": None, "every 5 s": 5.0, "every 0.25 s": 0.25}


@dataclass(frozen=True)
class Round:
    """What one server did in a few seconds.

    Args:
        tokens: that arrived.
        seconds: that were counted.
        cpu_s: of the server's processes.
    """

    tokens: int
    seconds: float
    cpu_s: float

    @property
    def rate(self) -> float:
        """Return tokens a second."""
        return self.tokens / self.seconds

    @property
    def per_cpu(self) -> float:
        """Return tokens for a second of processor time."""
        return self.tokens / self.cpu_s


class Watched:
    """A server with adapters, and the load on it.

    Args:
        server: it.
        models: its adapters.
        clients: of the closed loop.
    """

    def __init__(self, server: Served, models: Sequence[Model], clients: int) -> None:
        self.url = server.url
        self._process = psutil.Process(server.pid)
        self._models, self._clients = models, clients

    def round(self, requests: int, seed: int) -> Round:
        """Ask adapters by Zipf's law. Raises RuntimeError if an answer is wrong."""
        return asyncio.run(self._round(requests, seed))

    async def _round(self, requests: int, seed: int) -> Round:
        load = Load(len(self._models), 1.0, Lengths("fixed", (32,)), Lengths("fixed", (32,)))
        cpu = self._cpu_s()
        async with connected(self.url, None) as wires:
            target, ending = Target(wires, self._models, seed), Ending(requests=requests)
            record = await closed_loop(target, load.requests(seed), self._clients, ending)
        bad = [seen.code for seen in record.seen if seen.code is not None]
        if bad:
            raise RuntimeError(f"{len(bad)} of {len(record.seen)} answers failed: {bad[0]}")
        tokens = sum(len(seen.tokens_s) for seen in record.seen)
        return Round(tokens, record.window_s, self._cpu_s() - cpu)

    def _cpu_s(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system


@contextmanager
def watched(
    base: Path, spec: BaseSpec, folder: Path, clients: int, **settings: str | int
) -> Iterator[Watched]:
    """A server with adapters until the block ends."""
    fixed: dict[str, str | int] = {"mode": "factored", "prefix_cache": 0}
    with served(base, folder / "data", **fixed, **settings) as server:
        files = Files(spec, _N, folder / "one")
        with Client(server.url) as client:
            names = [f"{number:03d}-".ljust(_NAME_CHARS, "a") for number in range(_ADAPTERS)]
            made = [client.upload(files.write(i), name) for i, name in enumerate(names)]
        models = [Model(adapter.name, adapter.digest) for adapter in made]
        yield Watched(server, models, clients)


class Scraper:
    """Asks for the metrics, again and again, until the block ends."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url).netloc
        self.seconds: list[float] = []
        self.size_bytes = 0

    @contextmanager
    def every(self, pause_s: float | None) -> Iterator[None]:
        """Ask while the block runs: at its start and after each pause; None never asks."""
        over = threading.Event()
        thread = threading.Thread(target=self._ask, args=(over, pause_s))
        if pause_s is not None:
            thread.start()
        try:
            yield
        finally:
            over.set()
            if pause_s is not None:
                thread.join()

    def _ask(self, over: threading.Event, pause_s: float) -> None:
        with closing(http.client.HTTPConnection(self._address, timeout=30)) as connection:
            while not over.is_set():
                started = time.perf_counter()
                connection.request("GET", "/metrics")
                self.size_bytes = len(connection.getresponse().read())
                self.seconds.append(time.perf_counter() - started)
                over.wait(pause_s)


@contextmanager
def collector() -> Iterator[None]:
    """Take spans, in a process of its own, on a port that OpenTelemetry's variable names."""
    command = [sys.executable, "-c", _COLLECTOR]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{port}"
        try:
            yield
        finally:
            stop(process)


def scrape_rows(base: Path, spec: BaseSpec, scratch: Path, options: Any) -> list[dict[str, Any]]:
    """Return what scrapes cost, by how often."""
    with watched(base, spec, scratch / "scraped", options.clients) as server:
        scraper = Scraper(server.url)

        def ask(name: str, seed: int) -> Round:
            with scraper.every(_SCRAPES[name]):
                return server.round(options.requests, seed)

        rounds = in_turns(list(_SCRAPES), ask, options.rounds)
    about = {
        "page_bytes": scraper.size_bytes,
        "scrape_ms": 1e3 * statistics.median(scraper.seconds),
    }
    return [row | about for row in rows_of("scrapes", rounds)]


def trace_row(base: Path, spec: BaseSpec, scratch: Path, options: Any) -> dict[str, Any]:
    """Return what a request's spans take of the request."""
    with watched(base, spec, scratch / "traced", options.clients) as server:
        server.round(options.requests, 0)
        rounds = [server.round(options.requests, seed) for seed in (1, 2, 3)]
    request_s = statistics.median(each.cpu_s for each in rounds) / options.requests
    with collector():
        spans_s = statistics.median(spans_seconds() for _ in range(options.rounds))
    return {
        "what": "traces: a request's processor time without its spans, against with them",
        "spans_us": 1e6 * spans_s,
        "request_ms": 1e3 * request_s,
        "ratio": request_s / (request_s + spans_s),
    }


def spans_seconds() -> float:
    """Return the processor time of one request's spans, from its beginning until they are sent."""
    traces = open_traces("bench", with_prompts=False)
    started = time.process_time()
    for _ in range(_TRACED):
        with traces.request("POST", {}) as trace:
            now = time.monotonic()
            times = SequenceTimes(now - 0.4, now - 0.3, now - 0.2, now - 0.1, now)
            trace.add(CallTrace("text_completion", "adapter", _ATTRIBUTES, [times]))
            trace.answered("/v1/completions", 200, {"http.request.method": "POST"})
    traces.close()
    return (time.process_time() - started) / _TRACED


def in_turns(
    names: Sequence[str], ask: Callable[[str, int], Round], count: int
) -> dict[str, list[Round]]:
    """Return so many rounds of each contender, after one that warms up.

    Args:
        names: of the contenders; another one begins each time.
        ask: a contender's name and a seed -> its round.
        count: of rounds.
    """
    rounds: dict[str, list[Round]] = {name: [] for name in names}
    for number in range(count + 1):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            found = ask(name, number)
            if number:
                rounds[name].append(found)
    return rounds


def rows_of(what: str, rounds: Mapping[str, Sequence[Round]]) -> list[dict[str, Any]]:
    """Return a row for each contender against `off`, by rounds that followed each other."""
    off = rounds["off"]
    rows = []
    for name, mine in rounds.items():
        if name == "off":
            continue
        rates = [a.rate / b.rate for a, b in zip(mine, off, strict=True)]
        cpu = [a.per_cpu / b.per_cpu for a, b in zip(mine, off, strict=True)]
        rows.append(
            {
                "what": f"{what}, {name}: tokens/s against none",
                "tokens_s": statistics.median(each.rate for each in mine),
                "none_tokens_s": statistics.median(each.rate for each in off),
                "ratio": statistics.median(rates),
                "cpu_ratio": statistics.median(cpu),
                "ratios": [round(ratio, 4) for ratio in rates],
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench observing", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=_PARTS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=96, help="of a round")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    options = parser.parse_args(arguments)
    rows = []
    with base_on_disk(options.width, options.layers) as (base, spec, scratch):
        if "scrapes" in options.only:
            rows += scrape_rows(base, spec, scratch, options)
        if "traces" in options.only:
            rows.append(trace_row(base, spec, scratch, options))
    report("observing", rows)
