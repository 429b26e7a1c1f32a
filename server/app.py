"""The ASGI application: routes, middleware, one error handler, and the service's life."""

import asyncio
import errno
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from adapters_core.errors import CanaryFailed
from registry import KeyMirror
from server.api.callers import Authentication, check_scope
from server.api.job_plot import Curves
from server.api.layer_pictures import LayerPictures
from server.api.middleware.plain_methods import allowed_methods
from server.api.middleware.rates import inference_paths
from server.api.middleware.stack import add_middleware
from server.api.routes import (
    activity,
    adapters,
    batches,
    compare,
    completions,
    console,
    documentation,
    encoding,
    evaluations,
    files,
    fine_tuning,
    keys,
    layers,
    limits,
    models,
    ops,
    residency,
    responses,
    scoring,
    tokens,
    workers,
)
from server.api.validation import invalid_parameter
from server.base.load_errors import BaseNotLoadable
from server.base.phases import Phases
from server.batches.runner import BatchRunner
from server.encoding.check import UnsupportedBase
from server.engine.mask_patterns import UnsupportedAttention
from server.errors import (
    FAMILIES,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    StorageFull,
    body_of,
    headers_of,
    status_of,
)
from server.processor.row_check import NeedsSearch, NotInvariant
from server.service import Service, log_unknown
from server.settings import Settings
from server.telemetry.metrics import Metrics
from server.telemetry.traces import Traces

_LOG = logging.getLogger("overtone")
#: Failures of a start with a message for the operator; others are logged with their traceback.
_EXPECTED = (
    *FAMILIES,
    BaseNotLoadable,
    UnsupportedAttention,
    UnsupportedBase,
    NotInvariant,
)
_ROUTES = (
    completions,
    responses,
    compare,
    encoding,
    scoring,
    tokens,
    evaluations,
    adapters,
    layers,
    residency,
    files,
    batches,
    fine_tuning,
    keys,
    limits,
    workers,
    models,
    ops,
    activity,
    console,
    documentation,
)


def create_app(
    settings: Settings,
    metrics: Metrics,
    start: Callable[[Phases], Service],
    on_ready: Callable[[Service], None] = lambda service: None,
    on_failure: Callable[[Exception], None] = lambda error: None,
    traces: Traces | None = None,
) -> FastAPI:
    """Return the application, which runs `start` on a thread once it is up.

    Until `start` has returned, /health/ready and the API answer 503 with the reason.

    Args:
        settings: of the server.
        metrics: of this process.
        start: loads the base and starts the service, in phases that it names; takes seconds to
            minutes.
        on_ready: called from another thread as soon as requests are served.
        on_failure: called if `start` fails, unless the canary has failed: then the server stays
            up, not ready, and /health/ready says why.
        traces: of requests; None makes none.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        starting = asyncio.create_task(_start(app, start, on_ready, on_failure))
        yield
        app.state.draining = True
        await asyncio.gather(starting, return_exceptions=True)
        for close in app.state.closers:
            await asyncio.to_thread(close)
        if app.state.service is not None:
            await app.state.service.meter.close()
            await asyncio.to_thread(app.state.service.close)
        app.state.authentication.close()

    app = FastAPI(
        title="Overtone",
        version=version("overtone"),
        lifespan=life,
        openapi_url=None,
        dependencies=[Depends(check_scope)],
    )
    _set_state(app, settings, metrics)
    for module in _ROUTES:
        app.include_router(module.router)
    for family in (*FAMILIES, HTTPException, RequestValidationError, OSError):
        app.add_exception_handler(family, _answer_error)
    app.state.counted = inference_paths(module.router for module in _ROUTES)
    add_middleware(app, settings, metrics, traces)
    if traces is not None:
        app.state.closers.append(traces.close)
    return app


def _set_state(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    """Set what routes and middleware read from `app.state`."""
    app.state.service = None
    app.state.draining = False
    app.state.is_stopping = lambda: False
    app.state.closers = []  # called before the service is closed
    app.state.wake_batches = lambda: None
    app.state.curves = Curves()
    app.state.pictures = LayerPictures()
    app.state.num_job_streams = 0
    app.state.num_evaluations = 0
    app.state.phases = Phases()
    app.state.why_not_ready = partial(_what_it_does, app.state.phases)
    app.state.metrics = metrics
    secrets = [key.get_secret_value() for key in settings.api_keys]
    app.state.authentication = Authentication(
        secrets, settings.require_keys, partial(_key_mirror, app)
    )


def _key_mirror(app: FastAPI) -> KeyMirror | None:
    service: Service | None = app.state.service
    return None if service is None else service.registry.key_mirror


async def _start(
    app: FastAPI,
    start: Callable[[Phases], Service],
    on_ready: Callable[[Service], None],
    on_failure: Callable[[Exception], None],
) -> None:
    try:
        app.state.service = await asyncio.to_thread(start, app.state.phases)
        app.state.service.meter.start()
        _LOG.info("ready: serving %s", app.state.service.base.spec.name)
    except Exception as error:
        if isinstance(error, NeedsSearch):
            _LOG.info("%s", error)
            on_failure(error)
            return
        _LOG.error("the server cannot serve: %s", error, exc_info=not isinstance(error, _EXPECTED))
        is_canary = isinstance(error, CanaryFailed)
        why = str(error) if is_canary else "the server cannot serve; its log has the reason"
        app.state.why_not_ready = lambda: why
        if is_canary:
            app.state.metrics.on_canary(False)
        else:
            on_failure(error)
        return
    for work in (on_ready, partial(_run_batches, app), log_unknown):
        if app.state.is_stopping():
            return
        try:
            await asyncio.to_thread(work, app.state.service)
        except Exception:
            if not app.state.is_stopping():  # a stopping server may refuse it
                _LOG.exception("the server serves, but a task after its start failed")


def _what_it_does(phases: Phases) -> str:
    """Return what /health/ready and the API say while the server starts."""
    return f"the server is starting: {phases.now}; try again in a moment"


def _run_batches(app: FastAPI, service: Service) -> None:
    """Begin to run batches, until the application ends."""
    if service.settings.run_batches:
        runner = BatchRunner(service, lambda: bool(app.state.is_stopping()))
        app.state.closers.append(runner.close)
        app.state.wake_batches = runner.wake
        runner.start()


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    """Answer an error of a known family with the error body of docs/api.md."""
    error = _translated(error)
    headers = headers_of(error)
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(allowed_methods(request.scope))
    return JSONResponse(body_of(error), status_of(error), headers=headers)


def _translated(error: Exception) -> Exception:
    """Return the framework's errors, and that of a full disk, as errors of server/errors.py.

    Raises:
        OSError: another one; `LastResort` answers and logs it.
    """
    if isinstance(error, OSError):
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise error
        return StorageFull("the server's disk is full; nothing was kept, try later")
    if isinstance(error, RequestValidationError):
        return invalid_parameter(error)
    if isinstance(error, HTTPException):
        if error.status_code == 404:
            return NotFound("there is nothing at this path; /docs lists what there is")
        if error.status_code == 405:
            return MethodNotAllowed("the path is there, but not for this method")
        return InvalidRequest(str(error.detail))
    return error
