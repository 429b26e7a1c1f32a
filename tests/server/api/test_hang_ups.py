"""Callers that hang up, at every point of a request: no error of the server's, and nothing kept."""

import json
import logging
import re
from typing import Any

import pytest

import spectra
from api_contract import api_document
from live import Live
from raw_http import Wire, head, post, wire
from waiting import until

FORM = (
    b'--cut\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
    b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf a file'
)
MULTIPART = "Content-Type: multipart/form-data; boundary=cut"
LONG = {"model": "tiny", "prompt": "Once", "max_tokens": 400, "ignore_eos": True}


def posts() -> list[tuple[str, bool]]:
    """Return the path of every route that takes a body, and whether it is a form."""
    found = []
    for path, operations in api_document()["paths"].items():
        for method, operation in operations.items():
            if method == "post" and "requestBody" in operation:
                form = "multipart/form-data" in operation["requestBody"]["content"]
                found.append((path, form))
    return found


def count_499(live: Live, route: str) -> float:
    return live.codes(route).get("499", 0.0)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Any:
    """No hang-up is worth a line of the log at the level of errors."""
    yield
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(("route", "is_form"), posts())
def test_half_a_body_is_no_error_of_the_servers(live: Live, route: str, is_form: bool) -> None:
    before = live.codes(route)
    for sent in (b"", FORM if is_form else b'{"model": "ti'):
        with wire(live.url) as line:
            path = re.sub(r"{.*?}", "x", route)
            about = MULTIPART if is_form else "Content-Type: application/json"
            line.send(head("POST", path, line.host, about, "Content-Length: 1000"), sent)
    until(lambda: count_499(live, route) == before.get("499", 0) + 2)
    assert live.codes(route) == before | {"499": before.get("499", 0) + 2}


def begin(line: Wire, path: str, body: dict[str, Any]) -> None:
    line.send(post(path, line.host, json.dumps(body).encode()))


CHAT = {"messages": [{"role": "user", "content": "Once"}], "max_completion_tokens": 400}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_caller_that_hangs_up_in_the_queue_is_forgotten(
    serve_all: Any, live: Live, path: str, stream: bool
) -> None:
    own = LONG if path == "/v1/completions" else {"model": "tiny", "ignore_eos": True, **CHAT}
    before = live.codes(path)
    with live.paused():
        with wire(live.url) as line:
            begin(line, path, {**own, "stream": stream})
            until(lambda: live.num_open == 2)
        until(lambda: count_499(live, path) == before.get("499", 0) + 1)
    until(lambda: live.num_open == 0)
    assert live.codes(path) == before | {"499": before.get("499", 0) + 1}


def test_a_caller_that_hangs_up_in_a_stream_is_forgotten(live: Live) -> None:
    route = "/v1/completions"
    before = live.codes(route)
    with wire(live.url) as line:
        begin(line, route, {**LONG, "stream": True, "n": 3})
        assert line.socket.recv(12) == b"HTTP/1.1 200"
        while b"data: " not in line.socket.recv(1 << 16):
            pass
    until(lambda: live.num_open == 0)
    until(lambda: count_499(live, route) == before.get("499", 0) + 1)
    assert live.codes(route) == before | {"499": before.get("499", 0) + 1}


def test_a_caller_that_stops_reading_a_stream_and_hangs_up_is_forgotten(live: Live) -> None:
    """The stream waits for room to send, not for its next token, when the connection ends."""
    with wire(live.url) as line:
        begin(line, "/v1/completions", {**LONG, "stream": True, "n": 8})
        until(lambda: live.num_open == 8)
    until(lambda: live.num_open == 0)


def test_the_adapter_of_a_caller_that_hangs_up_is_free_again(live: Live) -> None:
    assert live.upload("left", spectra.files(7)).status_code in (200, 201)
    caches = live.service.loader.memory._caches.values()

    def users() -> int:
        return sum(entry.users for cache in caches for entry in cache.entries.values())

    assert live.complete("left").status_code == 200
    with wire(live.url) as line:
        begin(line, "/v1/completions", {**LONG, "model": "left", "stream": True})
        while b"data: " not in line.socket.recv(1 << 16):
            pass
        assert users() == 1
    until(lambda: users() == 0)
    assert live.num_open == 0


def test_a_caller_that_leaves_a_jobs_events_is_forgotten(live: Live) -> None:
    file = {"file": ("a.jsonl", b'{"prompt": "a", "completion": "b"}\n')}
    told = live.http.post("/v1/files", data={"purpose": "fine-tune"}, files=file).json()
    body = {"model": "tiny", "training_file": told["id"]}
    job = live.http.post("/v1/fine_tuning/jobs", json=body).json()["id"]
    route = "/v1/fine_tuning/jobs/{job_id}/events"
    before = live.codes(route)
    with wire(live.url) as line:
        line.send(head("GET", f"/v1/fine_tuning/jobs/{job}/events?stream=true", line.host))
        assert line.socket.recv(12) == b"HTTP/1.1 200"
    until(lambda: count_499(live, route) == before.get("499", 0) + 1)
    assert live.codes(route) == {**before, "499": before.get("499", 0) + 1}
    assert live.app.state.num_job_streams == 0


def test_an_upload_that_ends_in_its_middle_leaves_nothing(live: Live) -> None:
    before = live.http.get("/v1/files").json()["data"]
    with wire(live.url) as line:
        line.send(head("POST", "/v1/files", line.host, MULTIPART, "Content-Length: 9000000"))
        line.send(FORM + b"x" * 2_000_000)
    until(lambda: count_499(live, "/v1/files") > 0)
    assert live.http.get("/v1/files").json()["data"] == before
    begun = [path for path in live.settings.data.rglob("*") if "upload" in path.name.lower()]
    assert [path for path in begun if path.is_file()] == []


def test_a_whole_answer_after_many_hang_ups(live: Live) -> None:
    for _ in range(100):
        with wire(live.url) as line:
            line.send(post("/v1/completions", line.host, b'{"model": "tiny"')[:-3])
    assert live.complete("tiny").status_code == 200
    assert live.num_open == 0
