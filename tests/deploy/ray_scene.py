"""A Ray cluster on this machine with replicas of tiny bases, and a plain server beside it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil

from bench.lib.ray_cluster import RayCluster, ray_cluster
from live import BASE
from program import Program
from registry.redis.embedded import EmbeddedServer

OTHER = "other"
#: Ray's defaults are ten seconds.
QUICK = {"RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1"}
#: Of every server here.
SETTINGS = {"calibration_s": 0, "kv_bytes": 1 << 26, "device": "cpu", "max_running": 16}


@dataclass(frozen=True)
class Scene:
    """A cluster with two replicas of one base and one of another, and a server of the first.

    All share a registry and a store.
    """

    cluster: RayCluster
    plain: Program
    http: httpx2.Client

    def replicas(self) -> list[psutil.Process]:
        """Return the actors with a server of the first base, the oldest first."""
        return [server.parent() for server in self.cluster.servers(BASE)]


def plan(base_folder: Callable[[str], Path], registry: str, folder: Path) -> dict[str, Any]:
    def base(name: str, shape: str, **more: Any) -> dict[str, Any]:
        places = {"base": base_folder(shape), "data": folder / name, "store": folder / "blobs"}
        settings = {name: str(path) for name, path in places.items()} | SETTINGS
        settings |= {"base_name": name, "registry": registry, "worker_nice": 0}
        return {"settings": settings, "actor": {"num_cpus": 0.1}, **more}

    two = {"replicas": {"least": 2}, "workers": {"number": 1, "actor": {"num_cpus": 0.1}}}
    growing = {"replicas": {"least": 1, "most": 2, "queue_s": 0.05, "add_after_s": 0}}
    return {"bases": [base(BASE, "llama", **two), base(OTHER, "qwen2", **growing)]}


@contextmanager
def scene(base_folder: Callable[[str], Path], folder: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        registry = stack.enter_context(closing(EmbeddedServer(folder / "registry")))
        made = plan(base_folder, registry.url, folder)
        cluster = stack.enter_context(ray_cluster({"/": made}, folder / "ray.log", QUICK))
        settings = {**SETTINGS, "store": folder / "blobs"}
        places = base_folder("llama"), folder / "plain", folder / "plain.log"
        plain = stack.enter_context(closing(Program(*places, registry.url, settings)))
        http = httpx2.Client(base_url=cluster.url, timeout=60, trust_env=False)
        yield Scene(cluster, plain, stack.enter_context(http))
