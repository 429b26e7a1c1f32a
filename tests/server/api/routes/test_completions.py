"""Completions over HTTP: the stream's format, who hangs up, many prompts, and bad bodies."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

import spectra
from live import JSON, Live, error_of
from raw_http import post, wire
from server.api import answering, event_stream
from waiting import until

LONG = {"max_tokens": 1000, "ignore_eos": True, "temperature": 0}
GENERATED = "overtone_generation_tokens_total"


@pytest.fixture(scope="module", autouse=True)
def _adapter(live: Live) -> None:
    assert live.upload("comp", spectra.files(5)).status_code in (200, 201)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let streams wait for their first token, however busy this machine is."""
    for name in ("READY_HOLD_S", "LOADING_HOLD_S"):
        monkeypatch.setattr(answering, name, 60.0)


def events_of(answer: httpx2.Response) -> list[str]:
    """Return the data of each event, after a check that nothing else is sent."""
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    *events, end = answer.text.split("\n\n")
    assert end == ""
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    return [event.removeprefix("data: ") for event in events]


def test_a_version_deleted_before_it_is_loaded_is_answered_by_the_names_newer_one(
    live: Live, monkeypatch: pytest.MonkeyPatch, patient: None
) -> None:
    for seed in (51, 52):
        assert live.upload("moving", spectra.files(seed)).status_code == 201
    older = live.http.get("/v1/adapters/moving/versions").json()["data"][-1]["digest"]
    materializer = live.service.loader._materializer
    open_blob = materializer._open_blob

    def overtaken(digest: str) -> Any:
        if digest == older:
            assert live.upload("moving", spectra.files(53)).status_code == 201
            assert live.http.delete("/v1/adapters/moving/versions/2").status_code == 200
        return open_blob(digest)

    monkeypatch.setattr(materializer, "_open_blob", overtaken)
    for stream in (False, True):
        answer = live.complete("moving", stream=stream)
        assert answer.status_code == 200
        assert answer.headers["X-Overtone-Adapter"].startswith("moving@3 ")
    assert live.complete("moving@2").status_code == 404


# The stream


def test_a_stream_is_events_then_done(live: Live) -> None:
    whole = live.complete("comp").json()
    answer = live.complete("comp", stream=True)
    assert answer.headers["X-Overtone-Adapter"].startswith("comp@1 sha256:")
    *chunks, done = events_of(answer)
    assert done == "[DONE]"
    bodies = [json.loads(chunk) for chunk in chunks]
    assert "".join(body["choices"][0]["text"] for body in bodies) == whole["choices"][0]["text"]
    ids = [token for body in bodies for token in body["choices"][0]["token_ids"]]
    assert ids == whole["choices"][0]["token_ids"]
    reasons = [body["choices"][0]["finish_reason"] for body in bodies]
    assert reasons == [None] * (len(bodies) - 1) + [whole["choices"][0]["finish_reason"]]
    for body in bodies:  # the mode may be another one than that of the first request
        assert body["overtone"] == {**whole["overtone"], "mode": bodies[0]["overtone"]["mode"]}


def test_a_stream_of_many_choices_keeps_them_apart(live: Live) -> None:
    asked: dict[str, Any] = {"prompt": ["Once", "Twice"], "n": 2, "temperature": 1, "seed": 3}
    whole = live.complete("comp", **asked).json()
    *chunks, _ = events_of(live.complete("comp", stream=True, **asked))
    texts = ["", "", "", ""]
    for chunk in map(json.loads, chunks):
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert texts == [choice["text"] for choice in whole["choices"]]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_the_usage_of_a_stream_comes_once_and_only_where_it_is_asked_for(
    live: Live, path: str
) -> None:
    prompt: dict[str, Any] = {"prompt": ["Once", "Twice"]}
    chat: dict[str, Any] = {"messages": [{"role": "user", "content": "Once"}]}
    body = {"model": "comp", "max_tokens": 6, "n": 2, "seed": 3}
    body |= prompt if path == "/v1/completions" else chat
    whole = live.http.post(path, json=body).json()

    def streamed(**options: Any) -> list[dict[str, Any]]:
        *chunks, _ = events_of(live.http.post(path, json={**body, "stream": True, **options}))
        return [json.loads(chunk) for chunk in chunks]

    assert all("usage" not in chunk for chunk in streamed())
    assert all("usage" not in chunk for chunk in streamed(stream_options={"include_usage": False}))
    *chunks, last = streamed(stream_options={"include_usage": True})
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in chunks)
    assert (last["choices"], last["usage"]) == ([], whole["usage"])


@pytest.mark.parametrize("name", ["include_usag", "continuous_usage_stats"])
def test_an_unknown_option_of_a_stream_is_refused(live: Live, name: str) -> None:
    answer = live.complete("comp", stream=True, stream_options={name: True})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, f"stream_options.{name}")


def test_a_stream_that_waits_has_its_headers_and_pings(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "PING_S", 0.02)
    body = {"model": "tiny", "prompt": "Once", "max_tokens": 2, "stream": True}
    with live.paused():
        request = live.http.build_request("POST", "/v1/completions", json=body)
        answer = live.http.send(request, stream=True)
        assert (answer.status_code, answer.headers["X-Overtone-Adapter"]) == (200, "tiny")
        lines = answer.iter_lines()
        assert [next(lines) for _ in range(4)] == [": ping", ""] * 2
        assert live.num_open == 2
    *_, end, blank = lines
    assert (end, blank) == ("data: [DONE]", "")
    answer.close()


def test_a_silence_between_two_tokens_is_broken_by_pings(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "PING_S", 0.02)
    body = {"model": "tiny", "prompt": "Once", "stream": True, **LONG}
    with live.http.stream("POST", "/v1/completions", json=body) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("data: {")
        with live.paused():
            assert ": ping" in lines
        assert any(line.startswith("data: {") for line in lines)
    until(lambda: live.num_open == 0)


@pytest.mark.parametrize(
    ("params", "status", "code"),
    [
        ({"model": "nobody"}, 404, "model_not_found"),
        ({"prompt": [999]}, 400, "invalid_request"),
        ({"max_tokens": 1024}, 400, "context_length_exceeded"),
        ({"suffix": "x"}, 400, "unsupported_parameter"),
    ],
)
def test_an_error_before_the_first_token_is_a_status_and_no_stream(
    live: Live, params: dict[str, Any], status: int, code: str
) -> None:
    answer = live.complete(**{"model": "comp", "stream": True, **params})
    assert (answer.status_code, error_of(answer)["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/json"
    assert live.num_open == 0


def test_an_adapter_that_fits_no_cache_is_a_status_before_any_token(
    serve: Callable[..., Live], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "READY_HOLD_S", 0.0)
    monkeypatch.setattr(answering, "LOADING_HOLD_S", 60.0)
    live = serve(coefficient_bytes=1024)
    small = spectra.files(1)
    assert live.upload("small", small).status_code == 201
    wide = {spectra.key(target): spectra.torch.ones(400) for target in spectra.TARGETS}
    assert live.upload("big", spectra.files(changed=wide, n_frequency=400)).status_code == 201
    for stream in (False, True):
        answer = live.complete("big", stream=stream)
        assert (answer.status_code, error_of(answer)["code"]) == (413, "too_large")
    assert live.complete("small").status_code == 200
    assert live.num_open == 0


@pytest.mark.parametrize("stream", [False, True])
def test_an_adapter_whose_answer_is_not_finite_fails_alone(
    live: Live, stream: bool, patient: None
) -> None:
    upload_huge(live)
    alone = live.tokens("comp")
    with ThreadPoolExecutor(6) as threads, live.paused():
        good = [threads.submit(live.tokens, "comp") for _ in range(4)]
        bad = threads.submit(live.complete, "huge", stream=stream)
        until(lambda: live.num_open == 6)
    assert [each.result() for each in good] == [alone] * 4
    assert (bad.result().status_code, error_of(bad.result())["code"]) == (500, "internal_error")
    assert live.num_open == 0


def upload_huge(live: Live) -> None:
    huge = {
        spectra.key(target): spectra.torch.full((spectra.N,), 3e38) for target in spectra.TARGETS
    }
    assert live.upload("huge", spectra.files(changed=huge)).status_code in (200, 201)


def test_an_error_after_the_headers_is_the_last_event(live: Live) -> None:
    upload_huge(live)
    body = {"model": "huge", "prompt": "Once", "stream": True}
    with live.paused():
        request = live.http.build_request("POST", "/v1/completions", json=body)
        answer = live.http.send(request, stream=True)
        assert answer.status_code == 200
    answer.read()
    event, done = events_of(answer)
    assert json.loads(event)["error"]["code"] == "internal_error"
    assert done == "[DONE]"
    until(lambda: live.num_open == 0)


# Hanging up


def _hang_up_while(live: Live, body: dict[str, Any], condition: Callable[[], bool]) -> None:
    """Send a request over a bare socket, and close it as soon as the condition holds."""
    content = json.dumps({"model": "comp", "prompt": "Once", **LONG, **body}).encode()
    with wire(live.url) as line:
        line.send(post("/v1/completions", line.host, content))
        if body.get("stream"):
            assert b"200 OK" in line.socket.recv(64)
        until(condition)


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_that_hangs_up_ends_its_generation(live: Live, stream: bool) -> None:
    before = live.metric(GENERATED)
    _hang_up_while(live, {"stream": stream}, lambda: live.num_open == 1)
    until(lambda: live.num_open == 0)
    assert live.metric(GENERATED) - before < 500  # of 1000


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_that_hangs_up_while_it_waits_leaves_the_queue(
    serve: Callable[..., Live], stream: bool
) -> None:
    live = serve(max_running=1)
    first = threading.Event()

    def told() -> Iterator[None]:
        body = {"model": "tiny", "prompt": "Once", "stream": True, **LONG}
        with live.http.stream("POST", "/v1/completions", json=body) as answer:
            for _ in answer.iter_lines():
                first.set()
                yield

    running = told()
    next(running)
    content = json.dumps({"model": "tiny", "prompt": "Once", "stream": stream, **LONG}).encode()
    with wire(live.url) as line:
        line.send(post("/v1/completions", line.host, content))
        if stream:
            assert b"200 OK" in line.socket.recv(64)
        until(lambda: live.num_open == 2)
    until(lambda: live.num_open == 1)
    assert live.metric(GENERATED) < 1000, "the first ended before the second left"
    running.close()
    until(lambda: live.num_open == 0)


# What may be asked


def test_many_prompts_times_n_come_in_order_and_each_as_alone(live: Live) -> None:
    prompts = ["Once", "Twice upon", "T"]
    asked: dict[str, Any] = {"temperature": 1, "seed": 9, "n": 3}
    together = live.complete("comp", prompts, **asked).json()
    assert [choice["index"] for choice in together["choices"]] == list(range(9))
    told = [choice["token_ids"] for choice in together["choices"]]
    for i, prompt in enumerate(prompts):
        alone = live.complete("comp", prompt, **asked).json()["choices"]
        assert told[3 * i : 3 * i + 3] == [choice["token_ids"] for choice in alone]
    usage = together["usage"]
    assert usage["prompt_tokens"] == sum(map(len, prompts))
    assert usage["completion_tokens"] == sum(map(len, told))


def test_token_ids_are_a_prompt_as_text_is(live: Live) -> None:
    import tiny

    ids = tiny.tokenizer()("Once")["input_ids"]
    assert live.tokens("comp", ids) == live.tokens("comp", "Once")
    both = live.complete("comp", [ids, ids[:2]]).json()["choices"]
    assert [choice["token_ids"] for choice in both][0] == live.tokens("comp", "Once")


def test_an_end_token_ends_an_answer_unless_it_is_ignored(live: Live) -> None:
    import tiny

    end: dict[str, Any] = {"logit_bias": {str(tiny.EOS): 100}}
    choice = live.complete("comp", **end).json()["choices"][0]
    assert (choice["finish_reason"], choice["token_ids"]) == ("stop", [tiny.EOS])
    assert choice["text"] == ""
    choice = live.complete("comp", ignore_eos=True, **end).json()["choices"][0]
    assert (choice["finish_reason"], choice["token_ids"]) == ("length", [tiny.EOS] * 8)


def test_a_prompt_may_fill_the_context_but_for_what_it_asks(live: Live) -> None:
    assert live.complete("comp", "a" * 1016, max_tokens=8).status_code == 200
    answer = live.complete("comp", "a" * 1017, max_tokens=8)
    assert (answer.status_code, error_of(answer)["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize("mode", ["factored", "merged"])
def test_an_answer_tells_the_mode_it_was_made_in(serve: Callable[..., Live], mode: str) -> None:
    live = serve(mode=mode)
    live.upload("comp", spectra.files(5))
    assert live.complete("comp").json()["overtone"]["mode"] == mode
    assert live.complete("tiny").json()["overtone"] == {
        "adapter": None,
        "version": None,
        "digest": None,
        "mode": "base",
    }
    assert live.complete("tiny").headers["X-Overtone-Adapter"] == "tiny"


# Bodies


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"model": "comp", "prompt": "x", "temperature": NaN}',
        b'{"model": "comp", "prompt": "x", "seed": 1e999}',
        b'{"model": "comp"}',
        b'{"prompt": "x"}',
        b'{"model": "", "prompt": "x"}',
        b'{"model": "comp", "prompt": "\\ud800"}',
        b'{"model": "\\uDfff", "prompt": "x"}',
        b'{"model": "comp", "prompt": "x", "\\ud800": 1}',
        b'{"model": "comp", "prompt": "\xed\xa0\x80"}',
    ],
)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_body_that_is_no_request_is_said_to_be_bad(live: Live, path: str, content: bytes) -> None:
    answer = live.http.post(path, content=content, headers=JSON)
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_request")
    assert live.complete("comp").status_code == 200


@pytest.mark.parametrize("name", ["tool_calls", "function_call", "tool_call_id", "audio"])
def test_a_message_whose_calls_would_be_dropped_is_refused_by_name(live: Live, name: str) -> None:
    said = {"role": "assistant", "content": "b", name: None}
    body = {"model": "tiny", "max_tokens": 1, "messages": [{"role": "user", "content": "a"}, said]}
    assert live.http.post("/v1/chat/completions", json=body).status_code == 200
    said[name] = [{"id": "c"}]
    answer = live.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert name in error_of(answer)["message"]


def test_a_huge_body_is_too_large_declared_or_not(serve: Callable[..., Live]) -> None:
    live = serve(max_body_bytes=4096)
    huge = json.dumps({"model": "tiny", "prompt": "x" * 5000}).encode()

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(huge), 512):
            yield huge[start : start + 512]

    for content in (huge, pieces()):
        answer = live.http.post("/v1/completions", content=content, headers=JSON)
        assert (answer.status_code, error_of(answer)["code"]) == (413, "too_large")
    answer = live.http.put("/v1/adapters/x/aliases/y", content=huge, headers=JSON)
    assert answer.status_code == 413
    assert live.complete("tiny").status_code == 200


def test_ends_of_lines_within_an_answer_end_no_event(live: Live) -> None:
    """Readers of lines, httpx's among them, take U+2028 and others for ends of lines."""
    text = "one\u2028two\x85three\u2029four"
    body = {"model": "tiny", "prompt": "Once", "max_tokens": 60, "guided_choice": [text]}
    got = ""
    with live.http.stream("POST", "/v1/completions", json={**body, "stream": True}) as answer:
        for line in answer.iter_lines():
            if line and line != "data: [DONE]":
                got += json.loads(line.removeprefix("data: "))["choices"][0]["text"]
    assert got == text
