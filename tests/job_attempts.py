"""Attempts at jobs in this process, on training without a model (fake_training.py)."""

import threading
from typing import Any

import fake_training
from jobs_made import fence_of, spec_for, upload
from registry.common.fence import Fence
from registry.connect import Registry
from registry.jobs.record import JobRecord
from registry.jobs.spec import Hyperparameters, JobSpec
from trainer.job.attempt import Attempt
from trainer.process.child_task import ChildTask
from trainer.process.settings import WorkerSettings

STEPS = 12


def file_job(registry: Registry, content: bytes = b'{"text": "a"}', **changes: Any) -> JobSpec:
    hyper = Hyperparameters(max_steps=STEPS, checkpoint_every_steps=5)
    words = {"hyperparameters": hyper, "base_fingerprint": fake_training.FINGERPRINT, **changes}
    spec = spec_for(upload(registry.files, content), **words)
    registry.jobs.create(spec, now=1.0)
    registry.jobs.queue(spec.id, now=1.0)
    return spec


def claimed(registry: Registry, spec: JobSpec) -> Fence:
    record = registry.claims.claim(spec.id, "one", now=2.0)
    assert record is not None
    return fence_of(record)


def attempt(
    registry: Registry, fence: Fence, stop: threading.Event | None = None, **changes: str
) -> JobRecord:
    words = {"run": "fake_training:run_job", "load": "fake_training:load", **changes}
    settings = WorkerSettings(base="tiny", device="cpu", name="w", **words)
    task = ChildTask(settings=settings, fence=fence, parent=0)
    Attempt(task, registry, stop or threading.Event()).run()
    return registry.jobs.get(fence.job)


def digest_of(registry: Registry, name: str = "poet") -> str:
    return registry.adapters.resolve(name).digest


def texts(registry: Registry, id_: str) -> str:
    return "\n".join(event.message for event in registry.jobs.events(id_, 1000))
