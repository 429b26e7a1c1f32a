"""Lines of JSON: what is in them, on one line each, and nothing of a request's text."""

import json
import logging
from collections.abc import Callable, Iterator

import pytest

from live import Live
from server.telemetry.process_log import JsonLines
from waiting import until


class Lines(logging.Handler):
    """Keeps what the server would write."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def log() -> Iterator[Lines]:
    handler, logger = Lines(), logging.getLogger("overtone")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_a_message_is_one_line_with_its_traceback(log: Lines) -> None:
    try:
        raise ValueError("bad\nthing")
    except ValueError:
        logging.getLogger("overtone").exception("it %s", "failed\nhere")
    [line] = log.lines
    assert "\n" not in line
    told = json.loads(line)
    assert told["message"] == "it failed\nhere"
    assert (told["level"], told["logger"]) == ("ERROR", "overtone")
    assert told["exception"].endswith("ValueError: bad\nthing")
    assert told["time"].endswith("+00:00")
    assert "request_id" not in told


def test_requests_have_lines_with_their_ids_and_no_text(
    log: Lines, serve: Callable[..., Live]
) -> None:
    server = serve(log_requests=True, tenant_header="X-Tenant", api_keys="gateway=key")
    headers = {"X-Request-Id": "request-7", "X-Tenant": "acme", "Authorization": "Bearer key"}
    body = {"model": "tiny", "prompt": "a secret", "max_tokens": 1}
    server.http.post("/v1/completions", json=body, headers=headers)

    def told() -> list[dict[str, object]]:
        return [t for line in log.lines if (t := json.loads(line)).get("route")]

    until(lambda: [t for t in told() if t["route"] == "/v1/completions"])
    [line] = [t for t in told() if t["route"] == "/v1/completions"]
    assert (line["method"], line["status"], line["request_id"]) == ("POST", 200, "request-7")
    assert line["tenant"] == "gateway/acme"
    assert isinstance(line["seconds"], float)
    assert not [line for line in log.lines if "secret" in line or "Bearer" in line]


def test_a_failing_request_is_logged_with_its_id(
    log: Lines, serve: Callable[..., Live], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    monkeypatch.setattr(server.app.state.metrics, "render_load", lambda: 1 / 0)
    answer = server.http.get("/metrics/load", headers={"X-Request-Id": "request-8"})
    assert answer.status_code == 500
    [line] = [json.loads(line) for line in log.lines if "ZeroDivisionError" in line]
    assert line["request_id"] == "request-8"
