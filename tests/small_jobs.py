"""Small jobs over tiny bases, and reporters that watch or disturb them."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tiny
from registry.jobs.samples import Samples
from registry.jobs.spec import Hyperparameters, JobSpec
from trainer.base import LoadedBase, make
from trainer.interfaces import Reporter, Wanted

#: Small, quick, and with several evaluations' worth of steps.
QUICK = Hyperparameters(
    n_epochs=2,
    batch_size=4,
    checkpoint_every_steps=3,
    checkpoint_every_s=1e9,
    checkpoint_samples=0,
)


def lm_base(shape: str = "llama") -> LoadedBase:
    return make(tiny.model(shape), tiny.tokenizer(), "tiny", "causal_lm")


def lines(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def sums(path: Path, count: int = 30) -> Path:
    return lines(path, ({"prompt": f"{i}+1=", "completion": str(i + 1)} for i in range(count)))


def job(base: LoadedBase, task: str = "causal_lm", **changes: Any) -> JobSpec:
    """Return a job of FourierFT on a tiny base; hyper-parameters go by their own names."""
    fields = Hyperparameters.__dataclass_fields__
    hyper = {name: changes.pop(name) for name in list(changes) if name in fields}
    spec = JobSpec(
        id="ftjob-0123456789abcdef01234567",
        name="sums",
        base_name=base.spec.name,
        base_fingerprint=base.spec.fingerprint,
        task=task,  # type: ignore[arg-type]
        training_file="file-1",
        method="fourierft",
        method_config={"n_frequency": 40},
        hyperparameters=replace(QUICK, **hyper),
    )
    return replace(spec, **changes)


class Killed(BaseException):
    """Stands for a signal: nothing of ours may catch it."""


@dataclass
class Watcher(Reporter):
    """Writes everything down; `disturb` is called at every question with its number."""

    disturb: Callable[[int], Wanted] = lambda number: "go"
    events: list[tuple[str, str]] = field(default_factory=list)
    values: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    checkpoints: list[tuple[int, str]] = field(default_factory=list)
    sampled: list[Samples] = field(default_factory=list)
    places: list[tuple[int, int, float | None]] = field(default_factory=list)
    asked: int = 0

    def event(self, level: str, message: str, data: dict[str, Any] | None = None) -> None:
        json.dumps(data)
        self.events.append((level, message))

    def validated(self) -> None:
        self.events.append(("info", "the job is valid"))

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self.values.append((step, values))

    def checkpoint(self, step: int, name: str) -> None:
        self.checkpoints.append((step, name))

    def samples(self, given: Samples) -> None:
        self.sampled.append(given)

    def progress(self, step: int, num_steps: int, seconds_left: float | None) -> None:
        self.places.append((step, num_steps, seconds_left))

    def wanted(self) -> Wanted:
        self.asked += 1
        return self.disturb(self.asked)


def killing_at(number: int) -> Callable[[int], Wanted]:
    """Return what kills the job when it asks for the `number`th time."""

    def disturb(asked: int) -> Wanted:
        if asked == number:
            raise Killed
        return "go"

    return disturb


def files_of(folder: Path) -> tuple[bytes, bytes]:
    return tuple(  # type: ignore[return-value]
        (folder / name).read_bytes()
        for name in ("adapter_model.safetensors", "adapter_config.json")
    )
