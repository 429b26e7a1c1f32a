"""Health, metrics, version, and what every answer has in common."""

import threading
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

import spectra
from adapters_core.errors import CanaryFailed
from live import Live, running, settings_of
from server.base.phases import Phases
from server.generation.runtime import SequenceRequest
from server.scheduling.sequence import Sampling
from server.service import Service
from server.telemetry.metrics import Metrics
from waiting import until

READY = "/health/ready"


def code_of(answer: httpx2.Response) -> str:
    code: str = answer.json()["error"]["code"]
    return code


def test_a_loading_server_lives_and_says_why_it_is_not_ready(live: Live) -> None:
    go, told = threading.Event(), threading.Event()

    def slow(metrics: Metrics, phases: Phases) -> Service:
        with phases.phase("loading the base"):
            phases.progress(0.4)
            told.set()
            go.wait(60)
        return live.service

    # The service is the other server's: it is taken away again before this one ends it.
    with running(live.settings, slow) as server:
        try:
            assert server.http.get("/health/live").status_code == 200
            assert told.wait(60)
            answer = server.http.get(READY)
            assert (answer.status_code, code_of(answer)) == (503, "not_ready")
            assert "starting: loading the base, 40% done, for" in answer.json()["error"]["message"]
            for path in ("/v1/models", "/v1/adapters", "/version"):
                assert code_of(server.http.get(path)) == "not_ready"
            assert code_of(server.complete("tiny")) == "not_ready"
            assert code_of(server.upload("early", spectra.files())) == "not_ready"
            assert server.http.get("/metrics").status_code == 200
            go.set()
            until(lambda: server.http.get(READY).status_code == 200)
            assert server.complete("tiny").status_code == 200
        finally:
            go.set()
            until(lambda: server.app.state.service)
            server.app.state.service = None


def test_a_server_that_cannot_serve_goes_on_saying_so(live: Live) -> None:
    def fails(metrics: Metrics, phases: Phases) -> Service:
        raise CanaryFailed("the transforms are wrong here")

    with running(live.settings, fails) as server:
        until(lambda: "transforms" in server.http.get(READY).text)
        answer = server.http.get(READY)
        assert (answer.status_code, code_of(answer)) == (503, "not_ready")
        assert server.complete("tiny").status_code == 503
        assert server.metric("overtone_canary_ok") == 0


def test_a_ready_server_names_its_base(live: Live) -> None:
    assert live.http.get("/health/live").json() == {"status": "live"}
    answer = live.http.get(READY)
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "base": "tiny"})


def test_a_draining_server_takes_nothing_new(live: Live) -> None:
    live.app.state.draining = True
    try:
        for answer in (live.http.get(READY), live.complete("tiny"), live.http.get("/v1/models")):
            assert (answer.status_code, code_of(answer)) == (503, "draining")
        assert live.http.get("/health/live").status_code == 200
    finally:
        live.app.state.draining = False


def test_a_server_without_its_loop_is_not_ready(serve: Callable[..., Live]) -> None:
    server = serve()
    server.service.runtime.stop()
    answer = server.http.get(READY)
    assert (answer.status_code, code_of(answer)) == (503, "not_ready")
    answer = server.complete("tiny")
    assert (answer.status_code, code_of(answer)) == (503, "draining")


def test_metrics_tell_what_was_done(serve: Callable[..., Live]) -> None:
    server = serve()
    server.upload("counted", spectra.files(1))
    for _ in range(3):
        server.complete("counted", "Once", max_tokens=5, ignore_eos=True)
    server.complete("nobody")
    server.http.get("/nowhere/to/be/found")
    answer = server.http.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    expected = {
        'overtone_requests_total{code="200",route="/v1/completions"}': 3,
        'overtone_requests_total{code="404",route="/v1/completions"}': 1,
        'overtone_requests_total{code="201",route="/v1/adapters"}': 1,
        'overtone_requests_total{code="404",route="unknown"}': 1,
        'overtone_adapter_requests_total{adapter="counted"}': 3,
        'overtone_adapter_first_token_seconds_count{adapter="counted"}': 3,
        "overtone_prompt_tokens_total": 12,
        "overtone_generation_tokens_total": 15,
        "overtone_time_to_first_token_seconds_count": 3,
        "overtone_inter_token_seconds_count": 12,
        "overtone_adapter_load_seconds_count": 1,
        'overtone_coefficients_resident{tier="device"}': 1,
        'overtone_cache_misses_total{cache="coefficients"}': 1,
        'overtone_cache_hits_total{cache="coefficients"}': 2,
        "overtone_requests_running": 0,
        "overtone_requests_waiting": 0,
        "overtone_canary_ok": 1,
        'overtone_registry_errors_total{op="publish"}': 0,
    }
    assert {sample: server.metric(sample) for sample in expected} == expected
    assert 'overtone_build_info{base="tiny"' in answer.text


def test_metrics_have_no_series_that_callers_can_multiply(live: Live) -> None:
    for i in range(5):
        live.http.get(f"/v1/adapters/unknown-{i}")
        live.http.get(f"/nowhere/{i}")
    text = live.http.get("/metrics").text
    assert "unknown-" not in text
    assert "nowhere" not in text


def test_schedulers_see_queue_cache_and_adapters_in_use(serve: Callable[..., Live]) -> None:
    server = serve(max_running=1)
    reached, go = threading.Event(), threading.Event()

    def hold(event: object) -> None:
        reached.set()
        go.wait(60)

    # Both are there before the first step, which the first one's token then holds up.
    asked = [
        SequenceRequest((1,) * 40, Sampling(max_tokens=2), adapter="poet"),
        SequenceRequest((1,), Sampling(max_tokens=1), tenant="other", adapter="clerk"),
        SequenceRequest((1,), Sampling(max_tokens=1), adapter="clerk", is_background=True),
    ]
    server.service.runtime.submit_all([(each, hold) for each in asked])
    try:
        assert reached.wait(60)
        text = server.http.get("/metrics/load").text
        found = {f.name: f.samples[0] for f in text_string_to_metric_families(text)}
        whole = server.http.get("/metrics").text
    finally:
        go.set()
    in_use = found["vllm:lora_requests_info"].labels
    assert in_use["running_lora_adapters"] == "poet"
    assert in_use["waiting_lora_adapters"] == "clerk"
    assert in_use["max_lora"] == "1"
    assert found["vllm:num_requests_running"].value == 1
    assert found["vllm:num_requests_waiting"].value == 1
    num_pages = int(found["vllm:cache_config_info"].labels["num_gpu_blocks"])
    assert found["vllm:kv_cache_usage_perc"].value == pytest.approx(2 / num_pages)
    assert 'running_lora_adapters="poet"' in whole


def test_the_version_tells_base_and_canary(live: Live) -> None:
    told = live.http.get("/version").json()
    assert told["version"]
    assert told["base"]["name"] == "tiny"
    assert told["base"]["fingerprint"].startswith("sha256:")
    assert told["max_length"] == 1024
    assert told["canary"]["checked"] > 0


def test_the_openapi_document_has_every_path(live: Live) -> None:
    told = live.http.get("/openapi.json").json()
    assert {
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/models",
        "/v1/adapters",
        "/v1/adapters/{name}",
        "/v1/adapters/{name}/versions",
        "/v1/adapters/{name}/versions/{version}/content",
        "/v1/adapters/{name}/aliases/{alias}",
        "/v1/adapters/{name}/rollback",
        "/health/live",
        "/health/ready",
        "/metrics",
        "/version",
    } <= set(told["paths"])


@pytest.mark.parametrize("path", ["/health/live", "/metrics", "/v1/models", "/nothing"])
def test_a_request_id_is_echoed(live: Live, path: str) -> None:
    answer = live.http.get(path, headers={"X-Request-Id": "my-own-7"})
    assert answer.headers["X-Request-Id"] == "my-own-7"


@pytest.mark.parametrize("given", [None, "", "x" * 129, "a\tb", "caf\u00e9"])
def test_a_missing_or_bad_request_id_is_replaced(live: Live, given: str | None) -> None:
    headers = {} if given is None else {"X-Request-Id": given.encode("latin-1")}
    answers = [live.http.get("/health/live", headers=headers) for _ in range(2)]
    ids = {answer.headers["X-Request-Id"] for answer in answers}
    assert len(ids) == 2
    assert given not in ids


def test_a_path_that_is_not_there_is_not_found(live: Live) -> None:
    answer = live.http.get("/v1/nothing")
    assert answer.status_code == 404
    told = answer.json()["error"]
    assert (told["code"], told["type"], told["param"]) == ("not_found", "not_found_error", None)


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/v1/completions"), ("GET", "/v1/chat/completions"), ("DELETE", "/v1/models")],
)
def test_a_method_that_is_not_there_is_said_with_those_that_are(
    live: Live, method: str, path: str
) -> None:
    answer = live.http.request(method, path)
    assert (answer.status_code, code_of(answer)) == (405, "invalid_request")
    assert answer.headers["Allow"] in ("OPTIONS, POST", "GET, HEAD, OPTIONS")
    assert answer.headers["X-Request-Id"]


def test_an_internal_error_tells_nothing_but_its_request_id(
    live: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> tuple[bytes, str]:
        raise RuntimeError("a secret at /srv/place, 0x7f00dead")

    monkeypatch.setattr(live.app.state.metrics, "render", broken)
    answer = live.http.get("/metrics", headers={"X-Request-Id": "find-me"})
    assert (answer.status_code, code_of(answer)) == (500, "internal_error")
    assert answer.headers["X-Request-Id"] == "find-me"
    for inside in ("secret", "/srv", "0x7f", "RuntimeError", "Traceback"):
        assert inside not in answer.text
    assert "find-me" in caplog.text
    assert "a secret at" in caplog.text
    monkeypatch.undo()
    assert live.metric('overtone_requests_total{code="500",route="/metrics"}') == 1


def test_settings_keep_keys_out_of_what_is_printed(
    base_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    settings = settings_of(base_folder("llama"), tmp_path, api_keys="hidden-key")
    assert "hidden-key" not in settings.model_dump_json() + repr(settings)
