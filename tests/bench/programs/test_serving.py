"""The program against a real server with real adapters: every field, and nothing left behind."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.lib import load_runner
from bench.lib.program import run_program
from bench.programs import serving
from overtone_client import ConnectionFailed, InvalidAdapter, InvalidArgument

if TYPE_CHECKING:
    from live import Live

SHORT = ["--prompt", "uniform:4:12", "--output", "fixed:5", "--warm-up", "2", "--json"]


@pytest.fixture(scope="module")
def server(serve_all: Callable[..., Live], base_folder: Callable[[str], Path]) -> Iterator[Live]:
    """A tiny server with two adapters of its own."""
    live = serve_all("llama")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVERTONE_URL", live.url)
        patch.setenv("OVERTONE_BASE", str(base_folder("llama")))
        patch.delenv("OVERTONE_API_KEY", raising=False)
        yield live


@pytest.fixture
def measured(server: Live, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Return what runs the program and gives its JSON."""

    def run(*arguments: str) -> dict[str, Any]:
        serving.main([*SHORT, *arguments])
        found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return found

    return run


def names(server: Live) -> list[str]:
    return [a["name"] for a in server.http.get("/v1/adapters?limit=1000").json()["data"]]


def check_counts(found: dict[str, Any], wanted: int) -> None:
    requests = found["requests"]
    assert requests["planned"] == wanted
    assert requests["planned"] == requests["sent"] + requests["dropped"]
    assert requests["sent"] == requests["completed"] + requests["failed"]
    assert requests["failed"] == sum(requests["errors"].values())


def test_closed_loop_over_made_adapters_fills_every_field(
    measured: Callable[..., dict[str, Any]], server: Live, tmp_path: Path
) -> None:
    before = server.metric("overtone_generation_tokens_total")
    config = '{"n": 30}'
    where = ["--out", str(tmp_path / "a.json"), "--picture", str(tmp_path / "a.png")]
    load = ["--requests", "24", "--clients", "4", "--zipf", "0", "--seed", "5"]
    found = measured("--make", "3", "--config", config, *load, *where)
    check_counts(found, 24)
    assert found["requests"]["completed"] == 24
    assert found["wrong_adapter"] == 0
    # The warm-up's two requests are not counted; the server's own counter saw them.
    assert server.metric("overtone_generation_tokens_total") - before == (24 + 2) * 5
    assert found["throughput"]["output_tokens_s"] == pytest.approx(24 * 5 / found["window_s"])
    for name in ("ttft_s", "itl_s", "latency_s"):
        assert 0 <= found[name]["p50"] <= found[name]["p99"] <= found[name]["max"] > 0
    assert found["fairness"]["adapters_answered"] == 3
    assert 0 < found["fairness"]["jain_tokens"] <= 1
    assert sum(row["requests"] for row in found["fairness"]["busiest"]) == 24
    assert found["server"]["base"]["name"] == "tiny"
    assert found["settings"]["seed"] == 5
    assert found["settings"]["prompt"] == "uniform:4:12"
    assert "api_key" not in found["settings"]
    assert {"processor", "commit", "date"} <= set(found["machine"])
    assert json.loads((tmp_path / "a.json").read_text()) == found
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert names(server) == []


def test_open_loop_over_the_base(measured: Callable[..., dict[str, Any]]) -> None:
    found = measured("--adapters", "0", "--loop", "open", "--rate", "60", "--requests", "20")
    check_counts(found, 20)
    assert found["requests"]["completed"] == 20
    assert found["late_s"]["p50"] < found["latency_s"]["max"]
    assert found["goodput"]["share"] <= 1


def test_interrupted_run_leaves_no_adapter(
    measured: Callable[..., dict[str, Any]], server: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def interrupt(*_: Any) -> None:
        seen.append(names(server))
        raise KeyboardInterrupt

    monkeypatch.setattr(serving, "summary", interrupt)
    monkeypatch.setattr(serving, "measure", interrupt)
    with pytest.raises(KeyboardInterrupt):
        measured("--make", "2", "--config", '{"n": 30}', "--requests", "4")
    assert [len(there) for there in seen] == [2]
    assert names(server) == []


def test_an_answer_by_another_adapter_is_counted_as_wrong(
    measured: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        serving, "Model", lambda name, digest: load_runner.Model(name, "sha256:other")
    )
    found = measured("--adapters", "0", "--requests", "4")
    assert found["wrong_adapter"] == 4
    assert found["requests"]["errors"] == {"wrong_adapter": 4}
    assert found["goodput"]["share"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "0 adapters are registered"),
        (["--adapters", "3"], "3 are wanted"),
        (["--prompt", "gauss:3:4"], "fixed:TOKENS, uniform:LEAST:MOST, lognormal:MEDIAN:SIGMA"),
        (["--loop", "open"], "--rate"),
        (["--rate", "-1"], "not above 0"),
        (["--clients", "0"], "--clients must be at least 1, not 0"),
        (["--zipf", "-1"], "--zipf"),
        (["--make", "1", "--method", "magic"], "no method 'magic'; there are"),
        (["--make", "1", "--method", "frod"], "needs the base's weights"),
        (["--make", "1", "--config", '{"n": 0}'], "method fourierft"),
        (["--make", "1", "--config", "[1]"], "not a JSON object"),
        (["--make", "1", "--base", "/nowhere"], "/nowhere"),
        (["--picture", "a.gif"], ".png, .pdf, .svg"),
        (["--picture", "/nowhere/a.png"], "is no folder"),
        (["--speed", "3"], "--speed"),
    ],
)
def test_what_cannot_be_measured_is_said(
    measured: Callable[..., dict[str, Any]], server: Live, arguments: list[str], message: str
) -> None:
    with pytest.raises(InvalidArgument) as told:
        measured(*arguments)
    assert message in told.value.message
    assert names(server) == []


@contextmanager
def other_server() -> Iterator[str]:
    """Something else that speaks HTTP."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "13")
            self.end_headers()
            self.wfile.write(b"<html></html>")

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as toy:
        thread = threading.Thread(target=toy.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{toy.server_port}"
        finally:
            toy.shutdown()
            thread.join()


def test_a_server_that_is_not_there_or_is_none(server: Live) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(ConnectionFailed, match="Is the server running"):
            serving.main(["--url", url])
    with other_server() as toy, pytest.raises(InvalidArgument, match="not an Overtone server's"):
        serving.main(["--url", toy])


def test_a_refused_upload_is_the_servers_error(
    measured: Callable[..., dict[str, Any]], server: Live, base_folder: Callable[[str], Path]
) -> None:
    with pytest.raises(InvalidAdapter):
        measured("--make", "1", "--base", str(base_folder("gpt2")), "--config", '{"n": 30}')
    assert names(server) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [(InvalidArgument("no"), 2), (ConnectionFailed("no"), 1), (KeyboardInterrupt(), 130)],
)
def test_alone_the_program_ends_in_one_line_and_a_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    assert run_program(fail) == code
    assert capsys.readouterr().err.count("\n") == (code != 130)


def test_a_person_reads_lines_of_at_most_80_columns_and_no_data_structures(
    server: Live, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in SHORT if word != "--json"]
    serving.main([*words, "--requests", "6", "--adapters", "0"])
    *lines, document = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 and "{" not in line for line in lines)
    assert [line.split()[0] for line in lines[:4]] == [
        *("requests", "throughput", "goodput", "fairness")
    ]
    p50 = json.loads(document)["ttft_s"]["p50"]
    (row,) = [line for line in lines if line.startswith("first token")]
    assert float(row.split()[3]) == pytest.approx(p50, rel=1e-3)
