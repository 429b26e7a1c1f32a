"""Start a server in this process and serve until it is told to stop."""

import gc
import logging
import socket
import sys
from collections.abc import Callable
from importlib.metadata import version

import torch
import uvicorn

from registry import connect
from server.app import create_app
from server.metrics import BuildInfo, Metrics
from server.model import Base, load_base
from server.service import Service, build
from server.settings import Settings
from server.shutdown import GracefulServer
from server.with_worker import WithWorker

_LOG = logging.getLogger("overtone")
#: Longer than balancers keep theirs: whoever closes an idle connection first is never the server,
#: which would cut off a request that is on its way.
_KEEP_ALIVE_S = 75


def launch(settings: Settings, on_ready: Callable[[Service], None] = lambda service: None) -> int:
    """Serve until Ctrl-C or SIGTERM; return the process's exit code.

    Args:
        settings: what to serve, and where.
        on_ready: called from a thread once requests are taken.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for noisy in ("httpx2", "httpcore2", "uvicorn.error"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    listener = _listen(settings.host, settings.port)
    if listener is None:
        return 1
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    _LOG.info("listening on http://%s:%d; loading %s", shown, port, settings.base)
    metrics = Metrics()
    failures: list[Exception] = []

    def fail(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    def ready(service: Service) -> None:
        if settings.with_worker:
            app.state.closers.append(WithWorker(settings, app.state.is_stopping).close)
        on_ready(service)

    def start() -> Service:
        service = start_service(settings, metrics)
        settle()
        return service

    app = create_app(settings, metrics, start, ready, fail)

    def fail_open() -> None:
        if app.state.service is not None:
            app.state.service.serving.worker.stop(timeout_s=0)

    server = GracefulServer(
        uvicorn.Config(app, log_config=None, access_log=False, timeout_keep_alive=_KEEP_ALIVE_S),
        settings.grace_s,
        fail_open,
    )
    app.state.is_stopping = lambda: server.should_exit  # streams without an end of their own
    with listener:
        server.run(sockets=[listener])
    return 1 if failures else 0


def start_service(settings: Settings, metrics: Metrics) -> Service:
    """Open the registry and its store, load the base, prove the transforms, start the loop."""
    registry = connect(
        settings.registry, settings.data, store=settings.store, observer=metrics.on_registry
    )
    try:
        registry.ownership.settle()
        base = load_base(
            settings.base, settings.base_name, settings.device, settings.dtype, settings.task
        )
        service = build(settings, base, registry, metrics)
        metrics.set_build(_build_info(base))
        return service
    except BaseException:
        registry.close()
        raise


def settle() -> None:
    """Have the garbage collector leave alone what the process keeps to its end.

    torch, transformers and the base are half a million objects: a full collection over them stops
    every thread for a quarter of a second, at any moment.
    """
    gc.collect()
    gc.freeze()


def _build_info(base: Base) -> BuildInfo:
    device = next(base.model.parameters()).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    spec = base.spec
    return BuildInfo(version("overtone"), spec.name, spec.fingerprint, name, torch.__version__)


def _listen(host: str, port: int) -> socket.socket | None:
    """Return a listening socket, or say why there is none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named outright: only then asyncio turns Nagle's algorithm off on what it accepts.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        sys.stderr.write(
            f"cannot listen on {host} port {port}: {error.strerror}. "
            "Is another server running there? Choose another with --port\n"
        )
        return None
    return listener
