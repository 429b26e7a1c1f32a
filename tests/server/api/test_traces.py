"""Traces of requests, as the SDK's in-memory exporter receives them from a real server."""

import gzip
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import spectra
from adapters_core.starting import CannotStart
from live import Live, serving, settings_of
from server.api.middleware.tracing import Tracing
from server.telemetry import traces as traces_module
from server.telemetry.traces import Traces, check_traces, open_traces
from waiting import until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "request-7"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
SECRET = "Once upon a time"


class Traced:
    """A server whose spans stay in memory."""

    def __init__(self, server: Live, spans: InMemorySpanExporter) -> None:
        self.server = server
        self._spans = spans

    def post(self, path: str, headers: dict[str, str] = CALLER, **body: Any) -> dict[str, Any]:
        """Send a request; return its spans by name, once that of the request has ended."""
        self._spans.clear()
        self.server.http.post(path, json=body, headers=headers)
        until(
            lambda: any(span.name.startswith("POST") for span in self._spans.get_finished_spans())
        )
        return {span.name: span for span in self._spans.get_finished_spans()}

    def complete(self, model: str, **body: Any) -> dict[str, Any]:
        fixed = {"prompt": SECRET, "max_tokens": 4, "ignore_eos": True, "model": model}
        return self.post("/v1/completions", **(fixed | body))

    @property
    def count(self) -> int:
        return len(self._spans.get_finished_spans())


@pytest.fixture
def traced(base_folder: Callable[[str], Path], tmp_path: Path) -> Iterator[Callable[..., Traced]]:
    """Return what starts a traced server: `traced(with_prompts, **settings)`."""
    with ExitStack() as stack:

        def start(with_prompts: bool = False, **changes: Any) -> Traced:
            spans, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
            provider.add_span_processor(SimpleSpanProcessor(spans))
            data = tmp_path / "data"
            settings = settings_of(base_folder("llama"), data, calibration_s=0, **changes)
            server = stack.enter_context(serving(settings, Traces(provider, with_prompts)))
            return Traced(server, spans)

        yield start


def seconds(span: ReadableSpan) -> tuple[float, float]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time / 1e9, span.end_time / 1e9


def test_a_request_is_a_child_of_its_caller_with_its_call_and_phases(
    traced: Callable[..., Traced],
) -> None:
    server = traced()
    digest = server.server.upload("poet", spectra.files(1)).json()["digest"]
    found = server.complete("poet")
    request, call = found["POST /v1/completions"], found["text_completion poet"]
    assert set(found) == {request.name, call.name, "load", "queue", "prompt", "tokens"}
    assert {f"{span.context.trace_id:032x}" for span in found.values()} == {TRACE}
    assert f"{request.parent.span_id:016x}" == PARENT
    assert call.parent.span_id == request.context.span_id
    phases = [found[name] for name in ("load", "queue", "prompt", "tokens")]
    assert {phase.parent.span_id for phase in phases} == {call.context.span_id}
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["overtone.request_id"] == "request-7"
    told = call.attributes
    assert told["gen_ai.operation.name"] == "text_completion"
    assert told["gen_ai.request.model"] == "poet"
    assert told["gen_ai.response.model"] == "poet@1"
    assert told["gen_ai.request.max_tokens"] == 4
    assert told["gen_ai.usage.output_tokens"] == 4
    assert told["gen_ai.response.finish_reasons"] == ("length",)
    assert told["overtone.digest"] == digest


def test_spans_name_the_tenant(traced: Callable[..., Traced]) -> None:
    headers = {**CALLER, "Authorization": "Bearer key"}
    body = {"model": "tiny", "prompt": "x", "max_tokens": 1}
    found = traced(api_keys="acme=key").post("/v1/completions", headers, **body)
    for name in ("POST /v1/completions", "text_completion tiny"):
        assert found[name].attributes["overtone.tenant"] == "acme"
    assert not [span for span in found.values() if "Bearer" in span.to_json()]


def test_phases_follow_each_other_within_the_request(traced: Callable[..., Traced]) -> None:
    server = traced()
    server.server.upload("poet", spectra.files(1))
    found = server.complete("poet")
    times = {name: seconds(span) for name, span in found.items()}
    small = 1e-3  # the offset between the clocks is read for each span
    begin, end = times["POST /v1/completions"]
    assert times["load"][1] <= times["queue"][1] + small  # a part of the queue
    assert times["queue"][1] == pytest.approx(times["prompt"][0], abs=small)
    assert times["prompt"][1] == pytest.approx(times["tokens"][0], abs=small)
    for first, last in times.values():
        assert begin - small <= first <= last <= end + small
    again = server.complete("poet")
    assert "load" not in again  # it is in memory


def test_a_stream_has_the_same_spans(traced: Callable[..., Traced]) -> None:
    server = traced()
    body = {"model": "tiny", "max_tokens": 3, "ignore_eos": True, "stream": True}
    found = server.complete(**body, n=2)
    call = found["text_completion tiny"]
    assert call.attributes["gen_ai.usage.output_tokens"] == 6
    assert call.attributes["gen_ai.response.finish_reasons"] == ("length", "length")
    assert "overtone.digest" not in call.attributes
    assert found["tokens"].attributes["overtone.choice"] == 1  # the last one by this name


def test_no_text_is_shown_unless_the_setting_asks(traced: Callable[..., Traced]) -> None:
    for with_prompts in (False, True):
        server = traced(with_prompts)
        found = server.complete("tiny")
        shown = [span for span in found.values() if SECRET in span.to_json()]
        assert [span.name for span in shown] == ["text_completion tiny"] * with_prompts
        if with_prompts:
            [prompt] = shown[0].attributes["overtone.prompts"]
            assert prompt.endswith(SECRET)


def test_failures_probes_and_what_is_not_sampled(traced: Callable[..., Traced]) -> None:
    server = traced()
    found = server.complete("nobody")
    [request] = found.values()
    assert request.attributes["http.response.status_code"] == 404
    assert request.status.status_code is StatusCode.UNSET
    server.server.app.state.draining = True
    [refused] = server.complete("tiny").values()
    server.server.app.state.draining = False
    assert refused.status.status_code is StatusCode.ERROR
    before = server.count
    server.server.http.get("/health/live")
    server.server.http.get("/metrics")
    answer = server.server.http.post(
        "/v1/completions", json={"model": "tiny", "prompt": "x"}, headers=UNSAMPLED
    )
    assert answer.status_code == 200
    assert server.count == before


def test_a_wrong_traceparent_begins_a_trace(traced: Callable[..., Traced]) -> None:
    found = traced().post(
        "/v1/completions", {"traceparent": "00-xyz"}, model="tiny", prompt="x", max_tokens=1
    )
    assert found["POST /v1/completions"].parent is None


def test_a_server_without_traces_has_no_part_of_them(live: Live) -> None:
    assert Tracing not in [one.cls for one in live.app.user_middleware]
    assert live.complete("tiny").status_code == 200


def test_spans_reach_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[ExportTraceServiceRequest] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = Thread(target=collector.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{collector.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        traces = open_traces("1.2.3", with_prompts=False)
        with traces.request("POST", CALLER) as trace:
            trace.answered("/v1/completions", 200, {"http.request.method": "POST"})
        traces.close()
        thread.join()
    [resource] = received[0].resource_spans
    named = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert (named["service.name"], named["service.version"]) == ("overtone", "1.2.3")
    [span] = resource.scope_spans[0].spans
    assert (span.name, span.trace_id.hex()) == ("POST /v1/completions", TRACE)


def test_a_missing_package_is_said_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_traces(True)
    monkeypatch.setattr(traces_module, "_PACKAGES", ("opentelemetry.no_such",))
    check_traces(False)
    with pytest.raises(CannotStart, match=r"pip install 'overtone\[otel\]'"):
        check_traces(True)
