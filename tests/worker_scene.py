"""Real workers, their processes and a real registry, and what is filed there."""

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

import fake_training
from jobs_made import BASE, spec_for, upload
from registry.connect import Registry
from registry.errors import RegistryUnavailable
from registry.jobs.record import JobRecord
from registry.jobs.spec import Hyperparameters, JobSpec
from waiting import until

TESTS = Path(__file__).parent
CONTENT = b'{"text": "a"}\n'
STEPS = 150
PROGRAM = """
import sys
from trainer.process.settings import WorkerSettings
from trainer.worker.worker import run_worker
sys.exit(run_worker(WorkerSettings.model_validate_json(sys.argv[1])))
"""


def start_worker(
    registry: Registry,
    data: Path,
    name: str,
    environment: Mapping[str, str] | None = None,
    **changes: Any,
) -> psutil.Popen:
    """Start a worker that notices a dead one after a second or two."""
    assert registry.server is not None
    words = {
        "registry": registry.server.url,
        "data": str(data),
        "base": "fake",
        "base_name": BASE,
        "name": name,
        "nice": 0,
        "beat_s": 0.2,
        "lost_after_s": 3.0,
        "grace_s": 30.0,
        "run": "fake_training:run_job",
        "load": "fake_training:load",
    }
    env = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", **(environment or {})}
    return psutil.Popen([sys.executable, "-c", PROGRAM, json.dumps({**words, **changes})], env=env)


@dataclass
class Scene:
    """A registry, its workers, and what was filed."""

    registry: Registry
    data: Path
    workers: list[psutil.Popen] = field(default_factory=list)
    patience_s: float = 60.0

    def start(self, **changes: Any) -> psutil.Popen:
        name = f"worker-{len(self.workers)}"
        self.workers.append(start_worker(self.registry, self.data, name, **changes))
        return self.workers[-1]

    def file(self, steps: int = STEPS, content: bytes = CONTENT, **changes: Any) -> JobSpec:
        hyper = Hyperparameters(max_steps=steps, checkpoint_every_steps=10)
        words = {"hyperparameters": hyper, "base_fingerprint": fake_training.FINGERPRINT}
        spec = spec_for(upload(self.registry.files, content), **{**words, **changes})
        self.registry.jobs.create(spec, now=1.0)
        self.registry.jobs.queue(spec.id, now=1.0)
        return spec

    def job(self, spec: JobSpec) -> JobRecord:
        """Return the record, waiting while the registry restarts."""
        while True:
            try:
                return self.registry.jobs.get(spec.id)
            except RegistryUnavailable:
                threading.Event().wait(0.01)

    def at_step(self, spec: JobSpec, step: int, fence: int = 0) -> JobRecord:
        """Wait until an attempt after `fence` has come to a step, or the job has ended."""

        def reached() -> JobRecord | None:
            found = self.job(spec)
            is_there = found.fence > fence and found.progress.step >= step
            return found if found.is_final or (is_there and found.state == "running") else None

        return until(reached, self.patience_s)

    def ended(self, spec: JobSpec) -> JobRecord:
        last = self.patience_s
        return until(lambda: found if (found := self.job(spec)).is_final else None, last)

    def child(self) -> psutil.Process:
        """Return the process of the job that runs."""

        def find() -> psutil.Process | None:
            found = [c for w in self.workers if w.is_running() for c in children(w)]
            return found[0] if found else None

        return until(find)

    def close(self) -> None:
        for worker in self.workers:
            if worker.is_running():
                worker.send_signal(signal.SIGCONT)
                worker.kill()
            worker.wait(30)


def children(worker: psutil.Process) -> list[psutil.Process]:
    """Return the processes that it has started and that still run."""
    with suppress(psutil.NoSuchProcess):
        return [child for child in worker.children() if runs(child)]
    return []


def runs(process: psutil.Process) -> bool:
    """Return whether it runs; a zombie has ended, and waits to be asked how."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False
