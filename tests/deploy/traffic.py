"""Traffic as a server has it, told to an `Observer`, and a server that answers GET /metrics."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from threading import Thread

from server.telemetry.metrics import BuildInfo, Metrics
from server.telemetry.observer import CacheStats, LoadStats, PlanStats, ServingLoad, StepStats

BUILD = BuildInfo("0.1.0", "demo", "sha256:12ab", "cpu", "2.13.0")


def built(max_adapters: int = 50) -> Metrics:
    metrics = Metrics(max_adapters)
    metrics.set_build(BUILD)
    return metrics


ROUTES = ("/v1/completions", "/v1/chat/completions", "/v1/adapters")
STATUSES = (200,) * 17 + (404, 429, 500)


@dataclass
class Traffic:
    """Calls every method of the observer as a busy server does; each round is a bit more."""

    metrics: Metrics
    random: Random = field(default_factory=lambda: Random(0))
    rounds: int = 0

    def __call__(self) -> None:
        self.rounds += 1
        for _ in range(20):
            self._request()
            self._step()
        for cache, entries in (("coefficients", 200), ("merged", 3)):
            counts = {"hits": 18, "misses": 2, "evictions": 1}
            so_far = {name: count * self.rounds for name, count in counts.items()}
            self.metrics.on_cache(CacheStats(cache, entries, entries * 40_000, **so_far))
        for method in ("fourierft", "loca"):
            self.metrics.on_load(LoadStats(method, self._seconds(0.02), self._seconds(0.01)))
        self.metrics.on_placed(PlanStats("factored", "merging", num_planned=1, saving=0.02))
        self.metrics.on_batch_request(is_good=True)
        self.metrics.on_background(1, 2)
        self.metrics.load.take(ServingLoad(frozenset({"a"}), frozenset(), 8, 2, 0.5, 64, 32, 100))
        self.metrics.on_disk(1 << 40, 1 << 26)
        self.metrics.on_canary(ok=True)

    def _request(self) -> None:
        status = self.random.choice(STATUSES)
        self.metrics.on_registry("resolve", self._seconds(0.001), ok=status != 500)
        self.metrics.on_request(self.random.choice(ROUTES), status, self._seconds(1.0))
        if status == 200:
            self.metrics.on_adapter(f"adapter-{int(self.random.paretovariate(1.0))}")
            self.metrics.on_first_token(self._seconds(0.1), self._seconds(0.02), "adapter-1")
            self.metrics.on_next_token(self._seconds(0.03))

    def _step(self) -> None:
        mode = self.random.choice(("base", "factored", "merged", "mixed"))
        self.metrics.on_step(
            StepStats(
                seconds=self._seconds(0.02),
                mode=mode,
                num_rows=self.random.randint(1, 64),
                num_adapters=self.random.randint(0, 8),
                num_running=8,
                num_waiting=2,
                prompt_tokens=40,
                generated_tokens=8,
            )
        )

    def _seconds(self, mean: float) -> float:
        return self.random.expovariate(1 / mean)


@contextmanager
def served(metrics: Metrics) -> Iterator[str]:
    """Answer GET /metrics on a free loopback port; give the server's URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body, content_type = metrics.render()
            self.send_response(200 if self.path == "/metrics" else 404)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
