"""One process with a server and the bare loop over the same engine, driven line by line.

http.py starts it, so that HTTP and the bare loop are compared on one set of weights, one
cache and one process. It prints `{"url": …}` once it serves; each line `{"new": N, "first": M}` on
its standard input runs the bare loop, while no request is open; `{"seconds": …}` answers it.
"""

import json
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from bench.lib.loop import Leases, Packer, run_to_end
from bench.lib.program import Parser
from server.app import create_app
from server.process.http_server import http_config
from server.process.launch import start_service
from server.service import Service
from server.settings import Settings
from server.telemetry.metrics import Metrics

_KV_BYTES = 256 << 20
_STOP_S = 30.0


@contextmanager
def serving(settings: Settings) -> Iterator[tuple[str, Service]]:
    """The application over uvicorn in a thread, ready: its URL and its parts."""
    metrics, ready, failures = Metrics(), threading.Event(), list[Exception]()

    def fail(error: Exception) -> None:
        failures.append(error)
        ready.set()

    app: FastAPI = create_app(
        settings, metrics, partial(start_service, settings, metrics), lambda _: ready.set(), fail
    )
    server = uvicorn.Server(http_config(app, settings, metrics))
    # Named TCP: only then does asyncio turn off Nagle's delays on what it accepts.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            ready.wait()
            if failures:
                raise failures[0]
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", app.state.service
        finally:
            server.should_exit = True
            thread.join(_STOP_S)


def bare(service: Service, leases: Leases, new: int, first: int) -> float:
    """Run the bare loop over the server's own engine; return the seconds it took."""
    engine = service.runtime._engine
    pages = _KV_BYTES // (32 * service.base.kv_token_bytes)
    started = time.perf_counter()
    run_to_end(engine, leases, pages, new, first)
    return time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until standard input ends."""
    parser = Parser(prog="python -m bench.programs.host", description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--adapters", type=Path, required=True, help="folder of adapters' folders")
    options = parser.parse_args(arguments)
    settings = Settings(
        base=options.base,
        base_name="bench",
        data=options.data,
        kv_bytes=_KV_BYTES,
        mode="factored",
        device="cpu",
    )
    with serving(settings) as (url, service):
        packer = Packer(service.base.spec)
        leases: Leases = [packer.from_file(path) for path in sorted(options.adapters.iterdir())]
        print(json.dumps({"url": url}), flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            seconds = bare(service, leases, order["new"], order["first"])
            print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
