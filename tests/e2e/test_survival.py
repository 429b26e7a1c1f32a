"""The real program: killed, interrupted, without its registry, misconfigured."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

import spectra
from live import BASE, Files, parts, until

PROGRAM = str(Path(sys.executable).with_name("overtone"))
REDIS = Path("/usr/bin/redis-server")
NUM_BEFORE = 4


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OVERTONE_")}
    return {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@dataclass
class Program:
    """`overtone serve` as a process, on one port and one data folder."""

    base: Path
    data: Path
    port: int
    registry: str
    log: Path
    process: subprocess.Popen[bytes]
    http: httpx2.Client

    @classmethod
    def start(cls, base: Path, data: Path, log: Path, registry: str = "embedded") -> "Program":
        port = free_port()
        http = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)
        made = cls(base, data, port, registry, log, _serve(base, data, port, registry, log), http)
        made.wait_until_ready()
        return made

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            try:
                return self.http.get("/health/ready").status_code == 200
            except httpx2.TransportError:
                return False

        until(is_ready, 90)

    def restart(self) -> None:
        self.process = _serve(self.base, self.data, self.port, self.registry, self.log)
        self.wait_until_ready()

    def kill(self) -> None:
        """End the server as a power cut would; its own valkey ends with it."""
        children = self.children()
        self.process.kill()
        self.process.wait(30)
        psutil.wait_procs(children, 30)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def valkey(self) -> psutil.Process:
        """Return the embedded registry's process."""
        (found,) = [p for p in self.children() if "valkey" in p.name()]
        return found

    def upload(self, name: str, files: Files) -> httpx2.Response:
        return self.http.post("/v1/adapters", data={"name": name}, files=parts(files))

    def tokens(self, name: str) -> list[int]:
        fixed = {"max_tokens": 8, "temperature": 0, "return_token_ids": True}
        body = {"model": name, "prompt": "Once", **fixed}
        answer = self.http.post("/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
        ids: list[int] = answer.json()["choices"][0]["token_ids"]
        return ids

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)
        self.http.close()


def _serve(
    base: Path, data: Path, port: int, registry: str, log: Path
) -> "subprocess.Popen[bytes]":
    flags = {"base": base, "base-name": BASE, "port": port, "data": data, "registry": registry}
    command = [PROGRAM, "serve", *(f"--{name}={value}" for name, value in flags.items())]
    with log.open("ab") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, env=environment())


@pytest.fixture(scope="module")
def llama(base_folder: Callable[[str], Path]) -> Path:
    return base_folder("llama")


@pytest.fixture(scope="module")
def program(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One program for the tests that kill it or its valkey; each leaves it running."""
    folder = tmp_path_factory.mktemp("survival")
    made = Program.start(llama, folder / "data", folder / "log")
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

    uploads = threading.Thread(target=go_on_uploading)
    uploads.start()
    assert enough.wait(60)
    program.kill()
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
    program = Program.start(llama, tmp_path / "data", tmp_path / "log", place)
    try:
        assert program.upload("known", spectra.files(1)).status_code == 201
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


def _start_redis(folder: Path) -> "subprocess.Popen[bytes]":
    flags = {"port": "0", "unixsocket": f"{folder}/redis.sock", "dir": str(folder), "save": ""}
    durable = {"appendonly": "yes", "appendfsync": "always", "logfile": "redis.log"}
    given = [part for name, value in (flags | durable).items() for part in (f"--{name}", value)]
    return subprocess.Popen([str(REDIS), *given], stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_answers_end_and_then_the_server_and_its_valkey(
    llama: Path, tmp_path: Path, how: signal.Signals
) -> None:
    program = Program.start(llama, tmp_path / "data", tmp_path / "log")
    try:
        assert program.upload("last", spectra.files(1)).status_code == 201
        children = program.children()
        assert children
        body = {"model": "last", "prompt": "Once", "stream": True, "ignore_eos": True}
        body |= {"max_tokens": 300}
        with program.http.stream("POST", "/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            program.process.send_signal(how)
            told = [line for line in lines if line]
        assert len(told) == 300
        assert told[-1] == "data: [DONE]"
        program.process.wait(30)
        gone, alive = psutil.wait_procs(children, 10)
        assert not alive
        log = program.log.read_text()
        assert f"listening on http://127.0.0.1:{program.port}" in log
        assert f"ready: serving {BASE}" in log
        assert "Traceback" not in log
        with pytest.raises(httpx2.TransportError):
            program.http.get("/health/live")
    finally:
        program.close()


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
    assert "in use" in ended.stderr
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
    assert (told["base"], told["port"], told["mode"]) == ("x", 8123, "auto")
    assert len(told["api_keys"]) == 2
    assert "secret" not in ended.stdout + ended.stderr


def test_a_flag_goes_before_the_environment() -> None:
    ended = run(
        "serve", "--base=x", "--port=8123", "--check", OVERTONE_PORT="9", OVERTONE_MODE="merged"
    )
    told = json.loads(ended.stdout)
    assert (told["port"], told["mode"]) == (8123, "merged")
