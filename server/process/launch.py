"""Start a server in this process and serve until a signal stops it."""

import gc
import logging
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version

import torch

from adapters_core.starting import end_now
from registry import Registry, connect
from server.api_keys import read_keys
from server.app import create_app
from server.base.loading import Base, load_base
from server.base.phases import Phases
from server.base.room import start_on
from server.base.starts import Starts
from server.process.exposure import check_exposure
from server.process.http_server import http_config
from server.process.listening import open_listeners, url_of
from server.process.shutdown import GracefulServer
from server.process.worker_process import WorkerProcess
from server.processor.choice import machine_parts
from server.processor.row_check import NeedsSearch, require_own_rows
from server.processor.search import can_search, search_and_restart
from server.service import Service, build
from server.settings import Settings
from server.telemetry.audit import open_audit_log
from server.telemetry.metrics import BuildInfo, Metrics
from server.telemetry.process_log import configure_logging
from server.telemetry.traces import open_traces

_LOG = logging.getLogger("overtone")


def launch(
    settings: Settings,
    on_ready: Callable[[Service], None] = lambda service: None,
    listeners: Sequence[socket.socket] = (),
) -> int:
    """Serve until Ctrl-C or SIGTERM; return the process's exit code.

    Args:
        settings: what to serve, and where.
        on_ready: called from a thread once requests are taken.
        listeners: of `open_listeners`; opened here if not given, closed in any case.

    Raises:
        CannotStart: host and port cannot be listened on, or must not be without keys; or the audit
            log cannot be written.
        KeyboardInterrupt: Ctrl-C has ended it, and everything is closed.
    """
    configure_logging(settings.log_format)
    check_exposure(settings)
    open_audit_log(settings.audit_log)
    listeners = list(listeners or open_listeners(settings))
    _LOG.info("listening on %s; loading %s", url_of(listeners[0]), settings.base)
    _warn_of_keys(settings)
    metrics = Metrics()
    starting = _Starting(settings, metrics)
    failures: list[Exception] = []

    def fail(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    def ready(service: Service) -> None:
        if settings.with_worker:
            app.state.closers.append(WorkerProcess(settings, app.state.is_stopping).close)
        on_ready(service)

    release = version("overtone")
    traces = open_traces(release, settings.trace_prompts) if settings.traces else None
    app = create_app(settings, metrics, starting.run, ready, fail, traces)

    def fail_open() -> None:
        if app.state.service is not None:
            app.state.service.serving.worker.stop(timeout_s=0)

    server = GracefulServer(
        http_config(app, settings, metrics),
        settings.grace_s,
        fail_open,
        starting.abandon,
    )
    app.state.is_stopping = lambda: server.should_exit  # ends streams that would go on for ever
    with ExitStack() as sockets:
        server.run(sockets=[sockets.enter_context(listener) for listener in listeners])
    if any(isinstance(failure, NeedsSearch) for failure in failures):
        search_and_restart(settings)
    return 1 if failures else 0


def _warn_of_keys(settings: Settings) -> None:
    keys = read_keys([key.get_secret_value() for key in settings.api_keys])
    tenants = {key.tenant for key in keys}
    if len(tenants) > 1:
        _LOG.warning(
            "OVERTONE_API_KEYS has keys of %d tenants, and each of them may make, list and revoke "
            "the keys of all: keep one for yourself, and make the others with `overtone keys "
            "create`, with the scopes that they need",
            len(tenants),
        )
    nameless = sum(not key.is_named for key in keys)
    if nameless:
        _LOG.warning(
            "%d of %d API keys have no name: with a lost key its files and jobs are lost, too. "
            "Write NAME=SECRET in OVERTONE_API_KEYS, and hand over what is there with `overtone "
            "tenant list` and `overtone tenant rename`",
            nameless,
            len(keys),
        )


@dataclass
class _Starting:
    """The start, on a thread that cannot be interrupted, and its abandonment by a signal."""

    settings: Settings
    metrics: Metrics
    is_over: bool = False
    registry: Registry | None = None

    def run(self, phases: Phases) -> Service:
        try:
            may_search = can_search(self.settings)
            service = start_service(self.settings, self.metrics, phases, self._opened, may_search)
            freeze_gc()
            phases.finish()
            return service
        finally:
            self.is_over = True

    def abandon(self, number: int) -> None:
        """End the process with a signal's exit code if the start has not ended.

        No request was accepted yet, so there is nothing to wait for. The embedded registry's server
        ends first.
        """
        if self.is_over:
            return
        if self.registry is not None:
            self.registry.close()
        end_now("stopped while starting; nothing was served", number)

    def _opened(self, registry: Registry) -> None:
        self.registry = registry


def start_service(
    settings: Settings,
    metrics: Metrics,
    phases: Phases,
    on_registry: Callable[[Registry], None] = lambda registry: None,
    may_search: bool = False,
) -> Service:
    """Open the registry and its store, load the base, prove the transforms, start the loop.

    Args:
        settings: what to serve.
        metrics: of this process.
        phases: of this start.
        on_registry: called with the registry as soon as it is open.
        may_search: end with `NeedsSearch` where another setting of the matrix library may help.

    Raises:
        NeedsSearch, NotInvariant: answers depend on their neighbours (row_check.py).
    """
    with phases.phase("opening the registry"):
        registry = connect(
            settings.registry_url,
            settings.data,
            store=settings.store,
            cache_bytes=settings.store_cache_bytes,
            observer=metrics.on_registry,
            key_grace_s=settings.key_grace_s,
        )
    on_registry(registry)
    starts = Starts(settings.data / "starts", tuple(machine_parts(os.environ)), phases)
    try:
        registry.open_store()
        with start_on(settings.device):
            base = _loaded(settings, starts)
            with phases.phase("preparing to serve"):
                service = build(settings, base, registry, metrics, starts)
        metrics.set_build(_build_info(base))
        _require_own_rows(service, may_search)
        return service
    except BaseException:
        registry.close()
        raise


def _loaded(settings: Settings, starts: Starts) -> Base:
    with starts.phases.phase("loading the base"):
        return load_base(
            settings.base,
            settings.base_name,
            settings.device,
            settings.dtype,
            settings.task,
            starts,
        )


def _require_own_rows(service: Service, may_search: bool) -> None:
    """Close a service with answers that depend on their neighbours, if they must not."""
    try:
        require_own_rows(service.rows, service.settings.deterministic, may_search)
    except BaseException:
        service.close()
        raise


def freeze_gc() -> None:
    """Exclude the objects that exist now from garbage collection.

    torch, transformers and the base are half a million objects, kept to the process's end: a full
    collection over them stops every thread for a quarter of a second, at any moment.
    """
    gc.collect()
    gc.freeze()


def _build_info(base: Base) -> BuildInfo:
    device = next(base.model.parameters()).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    spec = base.spec
    return BuildInfo(version("overtone"), spec.name, spec.fingerprint, name, torch.__version__)
