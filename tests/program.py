"""The real program as a process: `overtone serve` on one port and one data folder."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import psutil

from live import BASE, Files, parts
from waiting import until

PROGRAM = str(Path(sys.executable).with_name("overtone"))
_START_S = 200


def environment() -> dict[str, str]:
    """Return this process's environment without settings of Overtone's, on one thread.

    Jobs do not step back: what else runs on the machine are other tests.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OVERTONE_")}
    alone = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "OVERTONE_WORKER_NICE": "0"}
    return {**kept, **alone}


def run_worker_command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `overtone worker` to its end."""
    return subprocess.run(
        [PROGRAM, "worker", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        check=False,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@dataclass
class Program:
    """A server in a process of its own.

    Args:
        settings: name -> value, given in the environment.
        command: what serves, without its flags.
        start_s: a start that takes longer has failed.
    """

    base: Path
    data: Path
    log: Path
    registry: str = "embedded"
    settings: Mapping[str, object] = field(default_factory=dict)
    command: tuple[str, ...] = (PROGRAM, "serve")
    start_s: float = _START_S

    def __post_init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx2.Client(base_url=self.url, timeout=30, trust_env=False)
        self.process = self._serve()
        self.wait_until_ready()

    def _serve(self) -> "subprocess.Popen[bytes]":
        flags: dict[str, object] = {"base": self.base, "base-name": BASE, "port": self.port}
        flags |= {"data": self.data, "registry": self.registry}
        command = [*self.command, *(f"--{name}={value}" for name, value in flags.items())]
        variables = {f"OVERTONE_{n.upper()}": str(value) for n, value in self.settings.items()}
        with self.log.open("ab") as out:
            return subprocess.Popen(
                command, stdout=out, stderr=out, env={**environment(), **variables}
            )

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            try:
                return self.http.get("/health/ready").status_code == 200
            except httpx2.TransportError:
                return False

        until(is_ready, self.start_s)

    def restart(self) -> None:
        self.process = self._serve()
        self.wait_until_ready()

    def kill(self) -> None:
        """End the server as a power cut would; its own valkey ends with it."""
        children = self.children()
        self.process.kill()
        self.process.wait(30)
        _, alive = psutil.wait_procs(children, 30)
        assert not alive, "an orphan is left"

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

    def metrics(self, name: str) -> float:
        """Return the sum of a metric's samples; 0 if it has none yet."""
        lines = self.http.get("/metrics").text.splitlines()
        found = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return sum(float(value) for sample, _, value in found if sample.partition("{")[0] == name)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)
        self.http.close()
