"""A real server in this process: the application over uvicorn in a thread, on a loopback port."""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from fastapi import FastAPI

from api_contract import checking_client
from server.app import create_app
from server.base.phases import Phases
from server.generation.runtime import SequenceRequest
from server.process.http_server import http_config
from server.process.launch import start_service
from server.process.listening import open_listener, url_of
from server.scheduling.sequence import Sampling
from server.service import Service
from server.settings import Settings
from server.telemetry.metrics import Metrics
from server.telemetry.traces import Traces
from waiting import until

Files = Mapping[str, bytes]

BASE = "tiny"
FILE = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
#: Of a body that is sent as bytes.
JSON = {"Content-Type": "application/json"}
_DEADLINE_S = 60.0


@dataclass(frozen=True)
class Live:
    """A running server, seen from outside by `http` and from inside by `service`."""

    url: str
    app: FastAPI
    settings: Settings
    http: httpx2.Client

    @property
    def service(self) -> Service:
        service: Service = self.app.state.service
        return service

    @property
    def num_open(self) -> int:
        """Return how many sequences are open."""
        return self.service.runtime.num_open

    def upload(self, name: str, files: Files, **fields: str) -> httpx2.Response:
        """Upload an adapter as any HTTP client would."""
        return self.http.post("/v1/adapters", data={"name": name, **fields}, files=parts(files))

    def complete(self, model: str, prompt: Any = "Once", **params: Any) -> httpx2.Response:
        """Ask for eight tokens, the likeliest ones, if nothing else is said."""
        fixed = {"max_tokens": 8, "temperature": 0, "return_token_ids": True}
        body = {"model": model, "prompt": prompt, **fixed, **params}
        return self.http.post("/v1/completions", json=body)

    def tokens(self, model: str, prompt: Any = "Once", **params: Any) -> list[int]:
        """Return the token ids of one answer."""
        answer = self.complete(model, prompt, **params)
        assert answer.status_code == 200, answer.text
        ids: list[int] = answer.json()["choices"][0]["token_ids"]
        return ids

    def metric(self, sample: str) -> float:
        """Return a sample of /metrics by its name with its labels; it must be there."""
        lines = self.http.get("/metrics").text.splitlines()
        found = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        (value,) = [float(value) for name, _, value in found if name == sample]
        return value

    def codes(self, route: str) -> dict[str, float]:
        """Return how many requests of a route ended with each status."""
        text = self.http.get("/metrics").text
        found = re.findall(r'overtone_requests_total{code="(\d+)",route="(.*)"} (.*)', text)
        return {code: float(count) for code, of, count in found if of == route}

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Hold the engine's loop, so that all that arrives meanwhile is in flight together.

        One sequence, whose first token is not taken, is open until the block ends.
        """
        reached, go = threading.Event(), threading.Event()

        def hold(event: object) -> None:
            reached.set()
            go.wait(_DEADLINE_S)

        self.service.runtime.submit(SequenceRequest((1,), Sampling(max_tokens=1)), hold)
        assert reached.wait(_DEADLINE_S)
        try:
            yield
        finally:
            go.set()


def error_of(answer: httpx2.Response) -> dict[str, Any]:
    told: dict[str, Any] = answer.json()["error"]
    return told


def parts(files: Files) -> dict[str, tuple[str, bytes, str]]:
    """Return the multipart file fields of an upload."""
    return {
        "config": (CONFIG, files[CONFIG], "application/json"),
        "file": (FILE, files[FILE], "application/octet-stream"),
    }


def settings_of(base: Path, data: Path, **changes: Any) -> Settings:
    """Return a small server's settings."""
    fixed = {"base_name": BASE, "port": 0, "kv_bytes": 1 << 26, "device": "cpu"}
    return Settings(base=str(base), data=data, **(fixed | changes))


@contextmanager
def running(
    settings: Settings,
    start: Callable[[Metrics, Phases], Service] | None = None,
    traces: Traces | None = None,
) -> Iterator[Live]:
    """Run the application without waiting until it is ready.

    Args:
        start: instead of loading the base and opening the registry.
        traces: of its requests.
    """
    metrics = Metrics()
    chosen = start or partial(start_service, settings)
    app = create_app(settings, metrics, partial(chosen, metrics), traces=traces)
    server = uvicorn.Server(http_config(app, settings, metrics, timeout_graceful_shutdown=5))
    ports = [0] if settings.load_port is None else [0, settings.load_port]
    with ExitStack() as stack:
        sockets = [stack.enter_context(open_listener("127.0.0.1", port)) for port in ports]
        url = url_of(sockets[0])
        thread = threading.Thread(target=server.run, kwargs={"sockets": sockets})
        thread.start()
        try:
            with checking_client(url, _DEADLINE_S) as http:
                yield Live(url, app, settings, http)
        finally:
            server.should_exit = True
            thread.join(_DEADLINE_S)
            assert not thread.is_alive()


@contextmanager
def serving(settings: Settings, traces: Traces | None = None) -> Iterator[Live]:
    """Run the application and wait until it takes requests."""
    with running(settings, traces=traces) as live:
        until(lambda: live.http.get("/health/ready").status_code == 200)
        yield live
