"""Real servers as processes of their own, on a base of the benches' shape."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from adapters_core.base.spec import BaseSpec, spec_of
from adapters_core.contract.digest import digest_of
from adapters_core.contract.peft_config import PeftConfig
from adapters_core.format.description import AdapterDescription
from adapters_core.format.read import read_adapter
from adapters_core.format.write import CONFIG_NAME, WEIGHTS_NAME, write_adapter
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.methods import FourierFT
from bench.lib.bases import llama, random_adapter, save_llama, targets_of
from bench.lib.names import name_of
from overtone_client import Client, OvertoneError
from registry import NewVersion, Registry, connect, publish

_START_S, _STOP_S = 300.0, 60.0
_PROGRAM = [sys.executable, "-c", "from overtone_client.cli import main; main()", "serve"]


@dataclass(frozen=True)
class Served:
    """A running server.

    Args:
        url: where it listens.
        data: its folder, with its embedded registry.
        pid: of its process.
    """

    url: str
    data: Path
    pid: int

    @property
    def memory_bytes(self) -> int:
        """Return what its process holds in memory."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def registry(self) -> Registry:
        """Open the same registry; the caller closes it."""
        return connect("embedded", self.data)


@contextmanager
def served(base: Path, data: Path, **settings: str | int) -> Iterator[Served]:
    """`overtone serve` until the block ends, ready when it begins.

    Args:
        base: folder of the base.
        data: the server's own folder.
        settings: others than the defaults, by their names.

    Raises:
        RuntimeError: it ended, or was not ready in time; the message ends with its log.
    """
    data.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    flags = {"base": base, "base_name": "bench", "port": port, "data": data}
    with (data / "log").open("w") as log:
        command = [*_PROGRAM, *(f"--{k.replace('_', '-')}={v}" for k, v in flags.items())]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=_environment(settings))
    try:
        wait_until_ready(url, process, data / "log")
        yield Served(url, data, process.pid)
    finally:
        stop(process)


def _environment(settings: Mapping[str, str | int]) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OVERTONE_")}
    return kept | {f"OVERTONE_{name.upper()}": str(value) for name, value in settings.items()}


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once the server takes requests. Raises RuntimeError if it ends or takes too long."""
    deadline = time.monotonic() + _START_S
    with Client(url) as client:
        while not _is_ready(client):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server is not ready:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)


def _is_ready(client: Client) -> bool:
    try:
        return client.health().is_ready
    except OvertoneError:
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process: SIGTERM, then SIGKILL."""
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def base_on_disk(width: int, layers: int) -> Iterator[tuple[Path, BaseSpec, Path]]:
    """A scratch folder with a base in it: its folder, its spec, and room beside it."""
    with tempfile.TemporaryDirectory(prefix="overtone-bench-") as scratch:
        folder = save_llama(Path(scratch) / "base", width, layers)
        yield folder, spec_of(llama(width, layers), "bench"), Path(scratch)


class Files:
    """Random FourierFT adapters of query and value, written as fast as bytes can be copied.

    All have one header: only the coefficients of the first one's file are drawn anew.

    Args:
        spec: of the base.
        n: coefficients a layer.
        folder: where one adapter lies at a time.
    """

    def __init__(self, spec: BaseSpec, n: int, folder: Path) -> None:
        import torch

        self.folder, self._spec = folder, spec
        shapes = {target: spec.targets[target] for target in targets_of(spec, "qv")}
        method, bases = FourierFT(n, 300.0), BasisCache(torch.device("cpu"))
        write_adapter(folder, *random_adapter(method, shapes, bases, 0), spec)
        self.file, self.config = folder / WEIGHTS_NAME, (folder / CONFIG_NAME).read_bytes()
        self._canonical = PeftConfig.parse(self.config).canonical()
        whole = self.file.read_bytes()
        start = 8 + int.from_bytes(whole[:8], "little")
        self._header, self._count = whole[:start], (len(whole) - start) // 4
        self._like = read_adapter(self.file, self.config, spec).description

    @property
    def size_bytes(self) -> int:
        """Return the bytes of one coefficient file."""
        return len(self._header) + 4 * self._count

    def write(self, number: int) -> Path:
        """Write the adapter of this number over the one before, and return its folder."""
        drawn = np.random.default_rng(number).standard_normal(self._count, dtype=np.float32)
        self.file.write_bytes(self._header + drawn.tobytes())
        return self.folder

    def describe(self) -> AdapterDescription:
        """Return what the product's own check would say of the adapter that lies there."""
        digest = digest_of(self.file, self._canonical)
        return type(self._like)(**(vars(self._like) | {"digest": digest}))


def register(registry: Registry, files: Files, numbers: range) -> float:
    """Publish adapters as an upload does, blob first, record last; return the seconds it took."""
    started = time.perf_counter()
    for number in numbers:
        files.write(number)
        new = NewVersion(
            name=name_of(number), description=files.describe(), created_at=int(time.time())
        )
        publish(registry.adapters, registry.blobs, new, files.file, files.config)
    return time.perf_counter() - started
