"""Training without a model: every step hashes the state of the one before, so nothing is skipped.

The same signatures as `trainer.base.load` and `trainer.training.run.run_job`; a job's process finds
them by their names. The finished adapter is a real FourierFT file.
"""

import hashlib
import json
import os
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.layer import Shape
from adapters_core.format.write import write_adapter
from adapters_core.methods import FourierFT
from registry.jobs.spec import JobSpec
from trainer.errors import Cancelled, Fault, InvalidTrainingFile, Paused, WrongBase
from trainer.interfaces import JobFiles, Reporter, Trained

FINGERPRINT = "sha256:" + "f" * 64
SPEC = BaseSpec("tiny", FINGERPRINT, {"layers.0": Shape(8, 8)})
_ROUNDS = 8000  # a few milliseconds


@dataclass(frozen=True)
class FakeBase:
    spec: BaseSpec


def load(source: str, task: str, name: str, device: str, *, bases: Path) -> FakeBase:
    return FakeBase(SPEC)


def run_job(
    spec: JobSpec, base: FakeBase, files: JobFiles, folder: Path, report: Reporter
) -> Trained:
    """Hash `max_steps` times, as `metadata["fake"]` says; resume from what lies in `folder`."""
    if spec.base_fingerprint != base.spec.fingerprint:
        raise WrongBase(f"the job is for {spec.base_fingerprint}", "model")
    content = files.training.read_bytes()
    if b"broken" in content:
        raise InvalidTrainingFile([Fault(2, "no JSON object")])
    report.validated()
    wish = spec.metadata.get("fake", {})
    _misbehave(wish, folder)
    total = spec.hyperparameters.max_steps or 10
    every = spec.hyperparameters.checkpoint_every_steps
    step, state = _resume(folder, hashlib.sha256(content).digest())
    report.metrics(0, {"eval_loss": 9.0})
    while step < total:
        step += 1
        state = hashlib.pbkdf2_hmac("sha256", state, b"step", _ROUNDS)
        report.metrics(step, {"train_loss": state[0] / 255, "tokens": 100.0})
        report.progress(step, total, float(total - step))
        if step % every == 0:
            _save(folder, step, state, report)
        wanted = report.wanted()
        if wanted != "go":
            _save(folder, step, state, report)
            raise Paused if wanted == "pause" else Cancelled
    return _finished(spec, base, folder, state, step, wish)


def _misbehave(wish: dict[str, Any], folder: Path) -> None:
    if wish.get("raise"):
        raise RuntimeError("a fault of the program")
    if wish.get("exit"):
        os._exit(wish["exit"])
    if wish.get("hang") and not (folder / "hung").exists():  # the next attempt does better
        (folder / "hung").touch()
        threading.Event().wait()


def _resume(folder: Path, fresh: bytes) -> tuple[int, bytes]:
    found = sorted(folder.glob("step-*.json"))
    if not found:
        return 0, fresh
    saved = json.loads(found[-1].read_text())
    return saved["step"], bytes.fromhex(saved["state"])


def _save(folder: Path, step: int, state: bytes, report: Reporter) -> None:
    name = f"step-{step:06d}.json"
    part = folder / f".{name}.part"
    part.write_text(json.dumps({"step": step, "state": state.hex()}))
    os.replace(part, folder / name)
    report.checkpoint(step, name)


def _finished(
    spec: JobSpec, base: FakeBase, folder: Path, state: bytes, steps: int, wish: dict[str, Any]
) -> Trained:
    method = FourierFT(n=4, scale=16.0, seed=spec.seed)
    values = torch.tensor(struct.unpack("<4H", state[:8]), dtype=torch.float32)
    (name,) = method.tensors(base.spec.targets["layers.0"])
    write_adapter(folder / "adapter", method, {"layers.0": {name: values}}, base.spec)
    metrics = {"eval_loss": 1.0, "accuracy": 0.5, **wish.get("metrics", {})}
    digest = "sha256:" + hashlib.sha256(state).hexdigest()
    config = {"n_frequency": 4, "scaling": 16.0}
    base_metrics = {"eval_loss": 2.0, "accuracy": 0.25}
    words = (steps, spec.seed, digest, "fourierft", config, "test")
    details = {"words": "x" * wish.get("details", 0)}
    return Trained(folder / "adapter", metrics, base_metrics, *words, details=details)
