"""HEAD and OPTIONS: what proxies and health checks ask."""

import pytest

from live import Live
from raw_http import head, wire
from waiting import until

PATHS = ("/", "/health", "/health/live", "/health/ready", "/v1/models", "/metrics", "/version")


@pytest.mark.parametrize("path", [*PATHS, "/docs", "/openapi.json", "/v1/models/tiny"])
def test_head_is_get_without_its_body(live: Live, path: str) -> None:
    told, asked = live.http.head(path), live.http.get(path)
    assert (told.status_code, told.content) == (asked.status_code, b"")
    assert told.headers["content-type"] == asked.headers["content-type"]
    if path != "/metrics":  # they change
        assert told.headers["content-length"] == asked.headers["content-length"]


def test_a_connection_goes_on_after_head(live: Live) -> None:
    with wire(live.url) as line:
        for _ in range(3):
            line.send(head("HEAD", "/health/live", line.host))
            line.send(head("GET", "/health/live", line.host))
            assert line.bare_head()[0] == 200
            assert line.answer()[2] == {"status": "live"}


def test_head_where_get_is_not(live: Live) -> None:
    assert live.http.head("/v1/completions").status_code == 405
    assert live.http.head("/nowhere").status_code == 404


def test_options_lists_the_methods_of_a_path(live: Live) -> None:
    def allowed(path: str) -> list[str]:
        answer = live.http.options(path)
        assert (answer.status_code, answer.content) == (204, b"")
        return answer.headers["allow"].split(", ")

    assert allowed("/v1/completions") == ["OPTIONS", "POST"]
    assert allowed("/health") == ["GET", "HEAD", "OPTIONS"]
    assert allowed("/v1/files") == ["GET", "HEAD", "OPTIONS", "POST"]
    assert live.http.options("/nowhere").status_code == 404


def test_options_of_the_server_as_a_whole(live: Live) -> None:
    with wire(live.url) as line:
        line.send(head("OPTIONS", "*", line.host))
        assert line.answer()[0] == 204


def test_a_405_names_all_methods_of_its_path(live: Live) -> None:
    answer = live.http.put("/v1/files")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"


def test_head_of_a_stream_ends_it(live: Live) -> None:
    """A job's events would go on for as long as the job."""
    told = live.http.post(
        "/v1/files",
        data={"purpose": "fine-tune"},
        files={"file": ("a.jsonl", b'{"prompt": "a", "completion": "b"}\n')},
    ).json()
    body = {"model": "tiny", "training_file": told["id"]}
    job = live.http.post("/v1/fine_tuning/jobs", json=body).json()["id"]
    path = f"/v1/fine_tuning/jobs/{job}/events?stream=true"
    with wire(live.url) as line:
        line.send(head("HEAD", path, line.host))
        assert line.bare_head()[0] == 200
        line.send(head("GET", "/health/live", line.host))
        assert line.answer()[0] == 200
    until(lambda: live.app.state.num_job_streams == 0)
