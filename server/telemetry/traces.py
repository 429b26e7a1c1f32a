"""Traces of requests as OpenTelemetry's spans, by its conventions for generative AI.

A request has a span, continued from the caller's `traceparent`; in it each call of the model has
one, and in that each sequence its phases: `load`, `queue`, `prompt`, `tokens`. Those of a call are
made from its times once it is over, so that a step of the engine does nothing for them.

The SDK is imported where spans are made: a server without traces needs no package for them, and a
request only looks at `current`.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from adapters_core.starting import CannotStart

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

#: Of one call that have spans: each phase of every choice would be hundreds.
MAX_SEQUENCES = 8
_PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
_CONVENTIONS = "https://opentelemetry.io/schemas/1.37.0"


@dataclass(frozen=True)
class SequenceTimes:
    """When one sequence went on, in seconds on the monotonic clock; None for what did not happen.

    Args:
        arrived: it was accepted.
        loaded: its adapter was in memory; earlier than `arrived` if it was there before.
        admitted: it began to run.
        first: its first token was there.
        last: its newest token was there.
    """

    arrived: float
    loaded: float | None = None
    admitted: float | None = None
    first: float | None = None
    last: float | None = None

    def phases(self) -> Iterator[tuple[str, float, float]]:
        """Yield name, begin and end of each phase that has ended; a load is a part of the queue."""
        if self.loaded is not None and self.loaded > self.arrived:
            yield "load", self.arrived, self.loaded
        if self.admitted is not None:
            yield "queue", self.arrived, self.admitted
            if self.first is not None:
                yield "prompt", self.admitted, self.first
        if self.first is not None and self.last is not None and self.last > self.first:
            yield "tokens", self.first, self.last


@dataclass(frozen=True)
class CallTrace:
    """One call of the model that is over.

    Args:
        operation: `chat` or `text_completion`.
        model: as the caller named it.
        attributes: of its span; those that are None are left out.
        sequences: its choices' times.
    """

    operation: str
    model: str
    attributes: Mapping[str, Any]
    sequences: Sequence[SequenceTimes]


class Traces:
    """Makes spans.

    Args:
        provider: of the SDK; takes the spans.
        with_prompts: whether calls show the texts of their prompts.
    """

    def __init__(self, provider: "TracerProvider", with_prompts: bool = False) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("overtone", schema_url=_CONVENTIONS)
        self.with_prompts = with_prompts

    @contextmanager
    def request(self, method: str, headers: Mapping[str, str]) -> Iterator["RequestTrace"]:
        """Begin a request's span, as a child of the caller's; it is `current` in the block."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract(headers)
        span = self._tracer.start_span(method, parent, SpanKind.SERVER)
        token = current.set(RequestTrace(self, span))
        try:
            yield RequestTrace(self, span)
        finally:
            current.reset(token)
            span.end()

    def child(
        self, parent: "Span", name: str, begin: float, attributes: Mapping[str, Any]
    ) -> "Span":
        """Begin a span below another at a time on the monotonic clock."""
        from opentelemetry.trace import set_span_in_context

        found = {key: value for key, value in attributes.items() if value is not None}
        context = set_span_in_context(parent)
        return self._tracer.start_span(name, context, attributes=found, start_time=_ns(begin))

    def close(self) -> None:
        """Send what is not sent yet."""
        self._provider.shutdown()


@dataclass(frozen=True)
class RequestTrace:
    """The span of an HTTP request, for what adds to it; safe from any thread."""

    traces: Traces
    span: "Span"

    @property
    def id(self) -> str:
        """Return the trace's id, 32 hexadecimal digits."""
        return f"{self.span.get_span_context().trace_id:032x}"

    def answered(self, route: str, status: int, attributes: Mapping[str, Any]) -> None:
        """Say how the request ended: as an error where the server is at fault."""
        from opentelemetry.trace import StatusCode

        self.span.update_name(f"{attributes['http.request.method']} {route}")
        self.span.set_attributes({"http.route": route, "http.response.status_code": status})
        self.span.set_attributes({k: v for k, v in attributes.items() if v is not None})
        if status >= 500:
            self.span.set_attribute("error.type", str(status))
            self.span.set_status(StatusCode.ERROR)

    def add(self, call: CallTrace) -> None:
        """Add the spans of a call that is over."""
        if not self.span.get_span_context().trace_flags.sampled or not call.sequences:
            return
        traces, name = self.traces, f"{call.operation} {call.model}"
        known = {
            "gen_ai.operation.name": call.operation,
            "gen_ai.provider.name": "overtone",
            "gen_ai.request.model": call.model,
        }
        arrived = min(one.arrived for one in call.sequences)
        span = traces.child(self.span, name, arrived, {**known, **call.attributes})
        for number, times in enumerate(call.sequences[:MAX_SEQUENCES]):
            for phase, begin, end in times.phases():
                part = traces.child(span, phase, begin, {"overtone.choice": number})
                part.end(_ns(end))
        span.end()


#: That of the request which is being answered; None without traces, and in the background.
current: ContextVar[RequestTrace | None] = ContextVar("overtone_trace", default=None)


def check_traces(is_on: bool) -> None:
    """Check before anything is loaded that traces can be sent.

    Raises:
        CannotStart: a package is missing.
    """
    if is_on and not all(map(_is_installed, _PACKAGES)):
        raise CannotStart(
            "traces need OpenTelemetry's SDK and its exporter, which are not installed",
            "Install them (pip install 'overtone[otel]'), or leave out --traces (OVERTONE_TRACES)",
        )


def open_traces(version: str, with_prompts: bool) -> Traces:
    """Return traces that go to a collector by OTLP over HTTP.

    Where to, how many, and what a server is called: OpenTelemetry's own variables (`OTEL_…`).
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME", "overtone")
    resource = Resource.create({SERVICE_NAME: name, SERVICE_VERSION: version})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traces(provider, with_prompts)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # a package above it is missing
        return False


def _ns(moment: float) -> int:
    """Return a time on the monotonic clock as nanoseconds since 1970."""
    return time.time_ns() - int((time.monotonic() - moment) * 1e9)
