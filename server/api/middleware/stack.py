"""All middleware in its order."""

from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from server.api.callers import Authentication
from server.api.middleware.ambiguity import Unambiguous
from server.api.middleware.audited import Audited
from server.api.middleware.body_limit import BodyLimit
from server.api.middleware.keys import ApiKeys
from server.api.middleware.last_resort import LastResort
from server.api.middleware.load_port import LoadPort
from server.api.middleware.openai_headers import OpenAIHeaders
from server.api.middleware.other_sites import OtherSites
from server.api.middleware.plain_methods import PlainMethods
from server.api.middleware.rates import Rated
from server.api.middleware.request_id import RequestId
from server.api.middleware.timing import Timing
from server.api.middleware.tracing import Tracing
from server.settings import Settings
from server.telemetry.observer import Observer
from server.telemetry.traces import Traces

#: What pages of other sites may send and read. No cookies: a page has the server's key, or none.
_CORS: dict[str, Any] = {
    "allow_methods": ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
    "allow_headers": ("*",),
    "expose_headers": (
        *("X-Request-Id", "X-Overtone-Adapter", "ETag", "Retry-After", "OpenAI-Processing-Ms"),
        *(f"X-RateLimit-{part}-Requests" for part in ("Limit", "Remaining", "Reset")),
        *(f"X-RateLimit-{part}-Tokens" for part in ("Limit", "Remaining", "Reset")),
    ),
    "allow_private_network": True,
}


def add_middleware(
    app: FastAPI, settings: Settings, observer: Observer, traces: Traces | None = None
) -> None:
    """Add the middleware, the innermost first."""
    app.add_middleware(LastResort)
    uploads = {
        "/v1/adapters": settings.max_upload_bytes,
        "/v1/files": settings.max_training_file_bytes,
    }
    app.add_middleware(BodyLimit, settings.max_body_bytes, uploads, settings.client_stall_s)
    authentication: Authentication = app.state.authentication
    app.add_middleware(Rated, app.state.counted)
    app.add_middleware(OpenAIHeaders, app.state.counted)
    app.add_middleware(Audited)
    app.add_middleware(ApiKeys, authentication, settings.tenant_header)
    app.add_middleware(Unambiguous, [settings.tenant_header or ""])
    app.add_middleware(PlainMethods)
    origins = settings.all_origins
    if origins:
        app.add_middleware(CORSMiddleware, allow_origins=origins, **_CORS)
    names = (settings.host, settings.allowed_hosts, origins)
    app.add_middleware(OtherSites, *names, lambda: authentication.is_open)
    app.add_middleware(Timing, observer, settings.log_requests)
    if traces is not None:
        app.add_middleware(Tracing, traces)
    app.add_middleware(RequestId)
    if settings.load_port is not None:
        app.add_middleware(LoadPort, settings.load_port)
