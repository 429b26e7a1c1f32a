"""The real program: killed, interrupted, without its registry, misconfigured."""

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

import spectra
from live import BASE
from program import PROGRAM, Program, environment
from registry.connect import connect
from waiting import until

REDIS = Path("/usr/bin/redis-server")
NUM_BEFORE = 4
#: More than run at once, so that some wait for their turn.
NUM_CALLERS = 20
CROWDED = {"max_running": 16, "kv_bytes": 1 << 26, "calibration_s": 0}


@dataclass
class Caller:
    """One stream, read to its end on a thread of its own."""

    url: str
    max_tokens: int
    status: int = 0
    error: str | None = None
    tokens: list[int] = field(default_factory=list)
    is_done: bool = False
    cut: Exception | None = None

    def call(self) -> None:
        body = {"model": "last", "prompt": "Once", "max_tokens": self.max_tokens, "stream": True}
        body |= {"temperature": 0, "ignore_eos": True, "return_token_ids": True}
        place = f"{self.url}/v1/completions"
        try:
            with httpx2.stream("POST", place, json=body, timeout=60, trust_env=False) as answer:
                self.status = answer.status_code
                for line in answer.iter_lines():
                    self._read(line)
        except httpx2.TransportError as error:
            self.cut = error

    def _read(self, line: str) -> None:
        data = line.removeprefix("data: ")
        self.is_done |= data == "[DONE]"
        if data.startswith("{"):
            told = json.loads(data)
            self.error = told["error"]["code"] if "error" in told else self.error
            for choice in told.get("choices", ()):
                self.tokens += choice["token_ids"]


@contextmanager
def calling(program: Program, max_tokens: int) -> Iterator[list[Caller]]:
    """Open streams, some of which wait for their turn; they have all ended after the block."""
    callers = [Caller(program.url, max_tokens) for _ in range(NUM_CALLERS)]
    threads = [threading.Thread(target=caller.call) for caller in callers]
    for thread in threads:
        thread.start()
    until(lambda: program.metrics("overtone_requests_running") == CROWDED["max_running"])
    until(lambda: program.metrics("overtone_requests_waiting") == NUM_CALLERS - 16)
    yield callers
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a caller was left hanging"


@pytest.fixture(scope="module")
def llama(base_folder: Callable[[str], Path]) -> Path:
    return base_folder("llama")


@pytest.fixture(scope="module")
def program(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One program for the tests that kill it or its valkey; each leaves it running."""
    folder = tmp_path_factory.mktemp("survival")
    made = Program(llama, folder / "data", folder / "log", settings=CROWDED)
    yield made
    made.close()


def test_a_killed_server_has_lost_nothing_it_said_it_had(program: Program) -> None:
    told: dict[str, dict[str, Any]] = {}
    for i in range(NUM_BEFORE):
        answer = program.upload(f"kept-{i}", spectra.files(i))
        assert answer.status_code == 201
        told[f"kept-{i}"] = answer.json()
    tokens = {name: program.tokens(name) for name in told}
    enough = threading.Event()

    def go_on_uploading() -> None:
        for i in range(NUM_BEFORE, 100_000):
            try:
                answer = program.upload(f"kept-{i}", spectra.files(i))
            except httpx2.TransportError:
                return  # the server is gone; whether this one is there is not known
            assert answer.status_code == 201
            told[f"kept-{i}"] = answer.json()
            if i >= NUM_BEFORE + 8:
                enough.set()

    assert program.upload("last", spectra.files(900)).status_code == 201
    uploads = threading.Thread(target=go_on_uploading)
    uploads.start()
    assert enough.wait(60)
    with calling(program, 900) as callers:
        program.kill()
        killed = time.monotonic()
    assert time.monotonic() - killed < 5
    assert all(isinstance(caller.cut, httpx2.TransportError) for caller in callers)
    uploads.join(60)
    assert not uploads.is_alive()
    program.restart()
    for name, record in told.items():
        found = program.http.get(f"/v1/adapters/{name}").json()
        assert (found["version"], found["digest"]) == (1, record["digest"])
        assert program.tokens(name)
    assert {name: program.tokens(name) for name in tokens} == tokens


def test_a_killed_valkey_comes_back_by_itself_and_known_adapters_go_on(program: Program) -> None:
    assert program.upload("known", spectra.files(1000)).status_code == 201
    tokens = program.tokens("known")
    first = program.valkey()
    first.kill()
    told, i = [], 0
    deadline = time.monotonic() + 60
    while not told or told[-1] != 201:
        assert program.tokens("known") == tokens
        answer = program.upload(f"meanwhile-{i}", spectra.files(2000 + i))
        told.append(answer.status_code)
        if answer.status_code != 201:
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "registry_unavailable"
        i += 1
        assert time.monotonic() < deadline
    until(lambda: program.valkey().pid != first.pid)
    assert program.http.get("/v1/adapters/known").json()["version"] == 1
    assert program.tokens(f"meanwhile-{i - 1}")


@pytest.mark.redis
@pytest.mark.skipif(not REDIS.exists(), reason="needs redis-server")
def test_a_registry_that_goes_away_and_comes_back_is_used_again(
    llama: Path, tmp_path: Path
) -> None:
    place = f"unix://{tmp_path}/redis.sock"
    redis = _start_redis(tmp_path)
    program = Program(llama, tmp_path / "data", tmp_path / "log", place)
    try:
        assert program.upload("known", spectra.files(1)).status_code == 201
        _hear_all(program, place, tmp_path)
        tokens = program.tokens("known")
        redis.kill()
        redis.wait(30)
        for i in range(3):
            assert program.tokens("known") == tokens
            answer = program.upload("new", spectra.files(2 + i))
            told = answer.json()["error"]
            assert (answer.status_code, told["code"]) == (503, "registry_unavailable")
            assert str(tmp_path) not in answer.text
        body = {"model": "unheard-of", "prompt": "Once"}
        answer = program.http.post("/v1/completions", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "registry_unavailable")
        redis = _start_redis(tmp_path)
        until(lambda: program.upload("new", spectra.files(9)).status_code in (200, 201), 30)
        assert program.http.get("/v1/adapters/known").json()["version"] == 1
        assert program.tokens("known") == tokens
        assert program.tokens("new")
    finally:
        program.close()
        redis.kill()
        redis.wait(30)


def _hear_all(program: Program, place: str, folder: Path) -> None:
    """Return when the server has heard of all changes so far: it forgets what they name."""
    assert program.upload("marker", spectra.files(8)).status_code == 201
    assert program.tokens("marker")
    with connect(place, folder / "data") as elsewhere:
        elsewhere.adapters.delete("marker")
    body = {"model": "marker", "prompt": "Once", "max_tokens": 1}
    until(lambda: program.http.post("/v1/completions", json=body).status_code == 404, 30)


def _start_redis(folder: Path) -> "subprocess.Popen[bytes]":
    flags = {"port": "0", "unixsocket": f"{folder}/redis.sock", "dir": str(folder), "save": ""}
    durable = {"appendonly": "yes", "appendfsync": "always", "logfile": "redis.log"}
    given = [part for name, value in (flags | durable).items() for part in (f"--{name}", value)]
    return subprocess.Popen([str(REDIS), *given], stdout=subprocess.DEVNULL)


@pytest.fixture
def crowded(llama: Path, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Return what starts a program with one adapter; it is ended with the test."""
    started: list[Program] = []

    def start(**settings: object) -> Program:
        made = Program(llama, tmp_path / "data", tmp_path / "log", settings=CROWDED | settings)
        started.append(made)
        assert made.upload("last", spectra.files(1)).status_code == 201
        return made

    yield start
    for program in started:
        program.close()


@pytest.mark.parametrize(
    ("how", "code"),
    [(signal.SIGTERM, 0), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_signal_lets_all_that_was_accepted_end_and_then_the_server_and_its_valkey(
    crowded: Callable[..., Program], how: signal.Signals, code: int
) -> None:
    program = crowded()
    alone = program.tokens("last")
    children = program.children()
    assert children
    with calling(program, 200) as callers:
        program.process.send_signal(how)
        until(lambda: is_refused(program))
    for caller in callers:
        assert (caller.status, caller.error, caller.cut) == (200, None, None)
        assert len(caller.tokens) == 200
        assert caller.tokens == callers[0].tokens
        assert caller.is_done
    assert callers[0].tokens[: len(alone)] == alone
    assert program.process.wait(30) == code
    _, alive = psutil.wait_procs(children, 10)
    assert not alive
    log = program.log.read_text()
    assert f"listening on {program.url}" in log
    assert f"ready: serving {BASE}" in log
    assert "Traceback" not in log


def is_refused(program: Program) -> bool:
    """Return whether the server takes nothing new; an answer is a clean no, or none at all."""
    try:
        answer = httpx2.get(f"{program.url}/health/ready", timeout=30, trust_env=False)
    except httpx2.TransportError:
        return True
    assert answer.status_code in (200, 503)
    return answer.status_code == 503


def test_what_the_grace_is_too_short_for_ends_with_an_error_and_no_caller_hangs(
    crowded: Callable[..., Program],
) -> None:
    program = crowded(grace_s=0.2)
    with calling(program, 1000) as callers:
        program.process.terminate()
        told = time.monotonic()
    assert time.monotonic() - told < 5
    for caller in callers:  # those that wait for their turn have their headers, too
        assert caller.cut is None
        assert len(caller.tokens) < 1000
        assert (caller.status, caller.error, caller.is_done) == (200, "draining", True)
    assert sum(not caller.tokens for caller in callers) == NUM_CALLERS - CROWDED["max_running"]
    assert program.process.wait(30) == 0
    assert "the grace of 0.2 s is over" in program.log.read_text()


@pytest.mark.slow
def test_a_second_signal_ends_the_server_at_once(crowded: Callable[..., Program]) -> None:
    program = crowded()
    children = program.children()
    with calling(program, 1000) as callers:
        program.process.terminate()
        until(lambda: is_refused(program))
        program.process.terminate()
        assert program.process.wait(5) == -signal.SIGTERM
    assert all(isinstance(caller.cut, httpx2.TransportError) for caller in callers)
    _, alive = psutil.wait_procs(children, 10)
    assert not alive


def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run the program to its end."""
    return subprocess.run(
        [PROGRAM, *arguments],
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_taken_port_is_said_and_ends_the_start(llama: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run("serve", f"--base={llama}", f"--port={port}", f"--data={tmp_path}")
    assert ended.returncode == 1
    assert f"port {port}" in ended.stderr
    assert "another program listens there" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "variables", "named"),
    [
        ((), {}, "--base"),
        (("--base=x", "--port=70000"), {}, "--port"),
        (("--base=x", "--mode=fast"), {}, "--mode"),
        (("--base=x", "--dtype=int8"), {}, "--dtype"),
        (("--base=x",), {"OVERTONE_MAX_RUNNING": "0"}, "OVERTONE_MAX_RUNNING"),
        (("--base=x",), {"OVERTONE_PORT": "high"}, "OVERTONE_PORT"),
        (("--base=x", "--colour=red"), {}, "--colour"),
    ],
)
def test_a_bad_setting_is_named_and_ends_the_start(
    arguments: tuple[str, ...], variables: dict[str, str], named: str
) -> None:
    ended = run("serve", *arguments, **variables)
    assert ended.returncode == 2
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_check_prints_the_settings_and_no_key() -> None:
    keys = "one-secret,two-secret"
    ended = run("serve", "--base=x", "--port=8123", "--check", OVERTONE_API_KEYS=keys)
    assert ended.returncode == 0
    told = json.loads(ended.stdout)
    assert (told["base"], told["port"], told["mode"]) == ("x", 8123, None)  # by the device
    assert len(told["api_keys"]) == 2
    assert "secret" not in ended.stdout + ended.stderr


def test_a_flag_goes_before_the_environment() -> None:
    ended = run(
        "serve", "--base=x", "--port=8123", "--check", OVERTONE_PORT="9", OVERTONE_MODE="merged"
    )
    told = json.loads(ended.stdout)
    assert (told["port"], told["mode"]) == (8123, "merged")
