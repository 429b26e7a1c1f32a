"""The headers that OpenAI's API has on its answers, with figures of this server."""

from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

import tiny_encoders as te
from live import Live, serving, settings_of
from server.api.middleware.openai_headers import duration

BODY = {"model": "tiny", "prompt": "Once", "max_tokens": 2}


def limits(answer: httpx2.Response) -> list[str]:
    names = ("limit", "remaining", "reset")
    return [answer.headers[f"x-ratelimit-{name}-requests"] for name in names]


def test_answers_say_how_long_they_took_and_the_engines_how_much_is_left(
    serve: Callable[..., Live],
) -> None:
    live = serve(max_running=2, max_waiting=3)
    answer = live.http.post("/v1/completions", json=BODY)
    assert answer.status_code == 200
    assert 0 <= int(answer.headers["openai-processing-ms"]) < 60_000
    assert limits(answer)[0] == "5"
    assert 4 <= int(limits(answer)[1]) <= 5
    with live.paused():  # one sequence is open
        streams = [
            live.http.send(
                live.http.build_request("POST", "/v1/completions", json={**BODY, "stream": True}),
                stream=True,
            )
            for _ in range(4)
        ]
        assert [int(limits(stream)[1]) for stream in streams] == [3, 2, 1, 0]
        refused = live.http.post("/v1/completions", json=BODY)
        assert refused.status_code == 429
        assert limits(refused)[:2] == ["5", "0"]
        assert int(refused.headers["retry-after"]) >= 1
    for stream in streams:
        stream.read()


def test_an_error_has_them_too_and_a_list_no_limits(live: Live) -> None:
    answer = live.http.post("/v1/completions", json={**BODY, "model": "nobody"})
    assert answer.status_code == 404
    assert "openai-processing-ms" in answer.headers
    assert "x-ratelimit-limit-requests" in answer.headers
    listed = live.http.get("/v1/models")
    assert "openai-processing-ms" in listed.headers
    assert not [name for name in listed.headers if name.startswith("x-ratelimit")]
    assert "openai-processing-ms" not in live.http.get("/health").headers


def test_embedders_count_their_inputs(tmp_path: Path, few_threads: None) -> None:
    base = te.save(tmp_path / "base", "bert", is_embedder=True)
    settings = settings_of(base, tmp_path / "data", max_running=4, max_waiting=6)
    with serving(settings) as live:
        answer = live.http.post("/v1/embeddings", json={"model": "tiny", "input": ["a", "b"]})
        assert answer.status_code == 200, answer.text
        assert limits(answer)[0] == "10"


def test_a_server_that_is_not_ready_says_when_to_come_back(live: Live) -> None:
    live.app.state.draining = True
    try:
        for path in ("/health", "/health/ready", "/v1/models"):
            answer = live.http.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    finally:
        live.app.state.draining = False


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0004, "1ms"),
        (0.012, "12ms"),
        (1, "1s"),
        (8.64, "8.64s"),
        (59.9999, "1m0s"),
        (90.951, "1m30.951s"),
        (360, "6m0s"),
        (7261.5, "2h1m1.5s"),
    ],
)
def test_times_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text
