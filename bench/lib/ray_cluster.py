"""Ray Serve with plans of ours, on this machine alone, in processes that end with this one.

This module is the program of the child, too: it imports Ray, nothing else here does.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from overtone_client import InvalidArgument
from registry.common.die_with_parent import tied

_READY = "ready"
_PORT = "--port="
_STOP_S = 60.0
#: Of Ray's shared memory: requests and answers are small.
_OBJECT_STORE_BYTES = 100 << 20
#: That Ray believes to have: actors are placed by these, and do not occupy them.
_NUM_CPUS = 8
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # what else runs here is no reason to end replicas
    "RAY_worker_niceness": "0",  # Ray's default is 15, behind what asks
}


@dataclass(frozen=True)
class RayCluster:
    """Running applications.

    Args:
        url: of Ray Serve's proxy.
        pid: of the program that has started Ray.
    """

    url: str
    pid: int

    def servers(self, base: str) -> list[psutil.Process]:
        """Return the plain servers of a base, in the order of their starts."""
        tree = psutil.Process(self.pid).children(recursive=True)
        found = [process for process in tree if _serves(process, base)]
        return sorted(found, key=lambda process: process.create_time())

    def urls(self, base: str) -> list[str]:
        """Return where these servers listen on this machine."""
        words = [word for process in self.servers(base) for word in process.cmdline()]
        ports = [word.removeprefix(_PORT) for word in words if word.startswith(_PORT)]
        return [f"http://127.0.0.1:{port}" for port in ports]


def _serves(process: psutil.Process, base: str) -> bool:
    try:
        words = process.cmdline()
        is_server = "serve" in words and any(word.startswith(_PORT) for word in words)
        return is_server and process.environ().get("OVERTONE_BASE_NAME") == base
    except psutil.Error:
        return False


@contextmanager
def ray_cluster(
    plans: Mapping[str, Any], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[RayCluster]:
    """Run Ray and applications until the block ends; nothing of it is left then.

    Args:
        plans: path below which each answers -> `server.cluster.plan.Plan` as JSON has it.
        log: file for what all processes print.
        environment: more variables of all processes.

    Raises:
        InvalidArgument: Ray is not installed.
        RuntimeError: it did not start; the message ends with its log.
    """
    if find_spec("ray") is None:
        raise InvalidArgument("this needs Ray: pip install 'overtone[ray]'")
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder, log.open("wb") as out:
        process = subprocess.Popen(
            tied([sys.executable, "-m", __name__, folder, str(port)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=out,
            env={**os.environ, **_SETTINGS, **(environment or {})},
            cwd=Path(__file__).parents[2],
        )
        assert process.stdin is not None
        assert process.stdout is not None
        family: list[psutil.Process] = []
        try:
            process.stdin.write(json.dumps(plans).encode() + b"\n")
            process.stdin.flush()
            if _READY.encode() not in process.stdout.readline():
                raise RuntimeError(f"Ray did not start:\n{log.read_text()[-4000:]}")
            yield RayCluster(f"http://127.0.0.1:{port}", process.pid)
        finally:
            if process.poll() is None:
                family = psutil.Process(process.pid).children(recursive=True)
            process.stdin.close()
            _end(process, family)
            process.stdout.close()


def _end(process: "subprocess.Popen[bytes]", family: list[psutil.Process]) -> None:
    """Wait for the program, and end those of its processes that it has left."""
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(family, timeout=_STOP_S)
    for each in alive:
        each.kill()
    psutil.wait_procs(alive)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def run(folder: str, port: int) -> None:
    """Run the plans on standard input until that is closed."""
    import ray
    from ray import serve

    from server.cluster.build import application
    from server.cluster.plan import Plan

    plans = json.loads(sys.stdin.readline())
    ray.init(
        num_cpus=_NUM_CPUS,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        _temp_dir=folder,
    )
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        made = {path: application(Plan.model_validate(plan)) for path, plan in plans.items()}
        targets = [
            serve.RunTarget(target, name=path.strip("/") or "overtone", route_prefix=path)
            for path, target in made.items()
        ]
        serve.run_many(targets)
        print(_READY, flush=True)
        sys.stdin.read()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))
