"""A server with a worker on the same machine, and the jobs that the benches create there."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import psutil

from bench.lib.bases import ENDINGS
from bench.lib.servers import Served, served, stop
from overtone_client import Client, Job

_WORKER = [sys.executable, "-c", "from overtone_client.cli import main; main()", "worker"]
_CHILD = "trainer.job.child"
_POLL_S = 0.02
_WAIT_S = 300.0
T = TypeVar("T")
_CHAT_TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


@dataclass(frozen=True)
class Pair:
    """A server and its worker.

    Args:
        server: runs, and is ready.
        worker: the process that claims the jobs.
    """

    server: Served
    worker: psutil.Process

    def job_process(self) -> psutil.Process | None:
        """Return the process of the job that runs, if one does."""
        for process in self.worker.children(recursive=True):
            try:
                if _CHILD in process.cmdline():
                    return process
            except psutil.Error:  # it has ended meanwhile
                continue
        return None


@contextmanager
def paired(base: Path, data: Path, separate: bool, nice: int) -> Iterator[Pair]:
    """A server with a worker: its own (`--with-worker`), or one that was started by itself.

    Args:
        base: folder of the base; it gets a chat template.
        data: the server's own folder.
        separate: whether the worker is started by itself, otherwise with its own defaults.
        nice: of its jobs.
    """
    (base / "chat_template.jinja").write_text(_CHAT_TEMPLATE)
    if not separate:
        with served(base, data, mode="factored", with_worker="true", worker_nice=nice) as server:
            yield Pair(server, waited_for(lambda: _own_worker(server)))
        return
    with served(base, data, mode="factored") as server, (data / "worker.log").open("w") as log:
        flags = [f"--base={base}", "--base-name=bench", f"--data={data}", f"--nice={nice}"]
        kept = {k: v for k, v in os.environ.items() if not k.startswith("OVERTONE_")}
        process = subprocess.Popen([*_WORKER, *flags], stdout=log, stderr=log, env=kept)
        try:
            yield Pair(server, psutil.Process(process.pid))
        finally:
            stop(process)


def _own_worker(server: Served) -> psutil.Process | None:
    for process in psutil.Process(server.pid).children():
        if "trainer.worker.commands" in process.cmdline():
            return process
    return None


def waited_for(look: Callable[[], T | None], wait_s: float = _WAIT_S) -> T:
    """Return what `look` finds, asking again and again. Raises TimeoutError."""
    deadline = time.monotonic() + wait_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing came of it within {wait_s:g} s")
        time.sleep(_POLL_S)
    return found


def write_texts(file: Path, lines: int, length: int) -> Path:
    """Write lines of random letters, a token each, and return the file."""
    random = Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz     "
    texts = ("".join(random.choices(letters, k=length)) for _ in range(lines))
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return file


def filed(client: Client, file_id: str, name: str, targets: str, **hyper: Any) -> Job:
    """File a job of FourierFT on `qv` or all `seven` linears of every layer; return its record."""
    config = {"target_modules": ENDINGS[targets]}
    return client.training.create(
        "bench",
        file_id,
        name=name,
        config=config,
        hyperparameters={"checkpoint_samples": 0, **hyper},
        seed=0,
    )


@dataclass(frozen=True)
class LongJob:
    """A job that never ends by itself; it is paused and resumed.

    Args:
        pair: where it runs.
        client: to that server.
        id: the job's.
    """

    pair: Pair
    client: Client
    id: str

    @property
    def step(self) -> int:
        """Return the steps that are done."""
        return self._looked_at().step

    @property
    def cpu_s(self) -> float:
        """Return the processor time that its process has had."""
        process = self.pair.job_process()
        if process is None:
            raise RuntimeError("the job has no process")
        times = process.cpu_times()
        return float(times.user + times.system)

    def go_on(self) -> None:
        """Let it be claimed again."""
        self.client.training.resume(self.id)

    def wait_until_it_trains(self, after: int) -> None:
        """Return once a step after this one is done."""
        waited_for(lambda: self._looked_at().step > after)

    def hold(self) -> None:
        """Hold it; its process is gone afterwards."""
        self.client.training.pause(self.id)
        waited_for(lambda: self.pair.job_process() is None)

    def end(self) -> None:
        """End it for good; its process is gone afterwards."""
        self.client.training.cancel(self.id)
        waited_for(lambda: self.pair.job_process() is None)

    def _looked_at(self) -> Job:
        job = self.client.training.job(self.id)
        if job.is_final:
            raise RuntimeError(f"the job has {job.status}: {job.error}")
        return job
