"""What the studies of the trainer share: contenders, one run in a process of its own, and rows.

A run of one of our methods is a whole job: `trainer.training.run.run_job`, its presets, its two
files. What is no method of ours (the head alone, all weights, PEFT's own adapters) goes through the
same loop over the same examples in the same order, so that nothing differs but what is trained.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors import safe_open
from torch import nn

from adapters_core.format.write import WEIGHTS_NAME
from bench.lib.timing import commit
from bench.studies.answers import with_update
from bench.studies.references import Reference, fixed_places
from registry.jobs.spec import Hyperparameters, JobSpec, Task
from trainer.base import LoadedBase
from trainer.errors import LossDiverged, LossNotFinite
from trainer.interfaces import JobFiles, Reporter
from trainer.tasks.choice import task_of
from trainer.training.context import JobContext
from trainer.training.data import open_data
from trainer.training.evaluate import EVAL_BATCH, evaluate
from trainer.training.presets import Rates
from trainer.training.run import run_job
from trainer.training.train import Trainer

_MIB = 1 << 20


@dataclass(frozen=True)
class Contender:
    """One line of a study's table.

    Args:
        what: as the table shows it.
        method: one of ours, by its name; or `base` (nothing is trained), `head`, `full`, `peft`.
        config: fields of adapter_config.json; for PEFT, the whole of it.
        hyper: fields of Hyperparameters that differ from the study's; none, for presets alone.
        group: which of the study's budgets or texts it is for, where there are several.
        is_fixed: whether LoCA's positions stay where they start, and every step moves its spectrum.
    """

    what: str
    method: str
    config: Mapping[str, Any] = field(default_factory=dict)
    hyper: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""
    is_fixed: bool = False

    @property
    def is_ours(self) -> bool:
        """Return whether the product trains it."""
        return self.method not in ("base", "head", "full", "peft")


@dataclass(frozen=True)
class Study:
    """A base, data and hyper-parameters that all contenders share.

    Args:
        name: of its program, `overtone bench NAME`.
        task: of the jobs.
        hyper: of all of them.
        metric: that the table is about.
        contenders: in the table's order.
        prepare: writes the data, and a base that is not there yet, into a folder; of the data
            only so many examples, where a number is given.
        base: loads the base, given that folder.
        files: finds a contender's data there.
        answers: further figures of the trained model on a contender's held-out file.
        more: the names of those that the table has.
    """

    name: str
    task: Task
    hyper: Hyperparameters
    metric: str
    contenders: Sequence[Contender]
    prepare: Callable[[Path, int | None], object]
    base: Callable[[Path], LoadedBase]
    files: Callable[[Path, Contender], JobFiles]
    answers: Callable[[nn.Module, LoadedBase, JobFiles, str], Mapping[str, float]] | None = None
    more: Sequence[str] = ()


def run_one(study: Study, contender: Contender, seed: int, work: Path) -> dict[str, Any]:
    """Return the row of one run: metrics before and after, size, seconds, peak memory.

    Seconds are the processor's, not the clock's: with one thread, and less disturbed by others.
    """
    about = {"what": contender.what, "group": contender.group, "seed": seed, "commit": commit()}
    base, files = study.base(work), study.files(work, contender)
    spec = _spec(study, contender, seed, base)
    with TemporaryDirectory() as folder:
        before, started = _reset_peak(), time.process_time()
        run = _ours if contender.is_ours else _reference
        try:
            with fixed_places() if contender.is_fixed else nullcontext():
                row, model = run(spec, base, files, Path(folder) / "job")
        except (LossDiverged, LossNotFinite) as error:
            return about | {"diverged": error.message, "before": {}, "after": {}}
        row |= {"cpu_s": time.process_time() - started, "peak_mib": (_peak() - before) / _MIB}
        if study.answers is not None:
            row["after"] |= study.answers(model(), base, files, contender.group)
    return about | row


def _spec(study: Study, contender: Contender, seed: int, base: LoadedBase) -> JobSpec:
    return JobSpec(
        id="ftjob-" + "0" * 24,
        name="study",
        base_name=base.spec.name,
        base_fingerprint=base.spec.fingerprint,
        task=study.task,
        training_file="file-study",
        method=contender.method,
        method_config=dict(contender.config),
        hyperparameters=replace(study.hyper, **contender.hyper),
        seed=seed,
    )


#: A run's row, and what gives the model as it was trained.
_Run = tuple[dict[str, Any], Callable[[], nn.Module]]


def _ours(spec: JobSpec, base: LoadedBase, files: JobFiles, folder: Path) -> _Run:
    trained = run_job(spec, base, files, folder, Reporter())
    size = (folder / WEIGHTS_NAME).stat().st_size
    numbers = coefficients_in(folder / WEIGHTS_NAME, base)
    rates = trained.details["learning_rates"]
    found: dict[str, Any] = {"coefficients": numbers, "bytes": size}
    found |= {
        "rate": rates["coefficients"],
        "steps": trained.steps,
        "data": trained.data_digest,
        "config": {k: v for k, v in trained.method_config.items() if k != "target_modules"},
        "targets": len(trained.method_config.get("target_modules", ())),
    }
    found |= {"before": trained.base_metrics, "after": trained.metrics}
    return found, lambda: with_update(base, folder)


def _reference(spec: JobSpec, base: LoadedBase, files: JobFiles, folder: Path) -> _Run:
    folder.mkdir(parents=True)
    task = task_of(spec.task, base, spec.hyperparameters, Reporter())
    data = open_data(files, task, spec.seed, folder / "data.json")
    trainable = Reference(base, task, spec.seed, spec.method, spec.method_config)
    hyper = spec.hyperparameters
    rate, head = hyper.learning_rate or 1e-4, hyper.head_learning_rate or 5e-3
    before = evaluate(trainable, data.held_out, EVAL_BATCH, lambda: None)
    rates = Rates(rate, rate, head)
    job = JobContext(spec, base, task, data, folder)
    steps = 0 if spec.method == "base" else Trainer(job, trainable, rates, fits={}).run().step
    after = evaluate(trainable, data.held_out, EVAL_BATCH, lambda: None) if steps else dict(before)
    numbers = trainable.num_coefficients
    row: dict[str, Any] = {"coefficients": numbers, "rate": rate}
    row |= {
        "bytes": 4 * (numbers + trainable.num_head),
        "steps": steps,
        "data": data.facts.digest,
        "before": before,
        "after": after,
    }
    return row, lambda: trainable.model


def coefficients_in(file: Path, base: LoadedBase) -> int:
    """Return how many trained numbers a file holds, those of the head and whole numbers apart."""
    head = base.spec.head.parameters if base.spec.head else {}
    count = 0
    with safe_open(file, "pt") as tensors:
        for key in tensors.keys():  # noqa: SIM118  (no mapping)
            tensor = tensors.get_tensor(key)
            is_head = any(key.endswith(f".{name}") for name in head)
            count += tensor.numel() if tensor.is_floating_point() and not is_head else 0
    return count


def run_elsewhere(
    study: Study, contender: Contender, seed: int, work: Path, threads: int
) -> dict[str, Any]:
    """Return the row of one run in a fresh process, so that its peak memory is its own."""
    given = [f"--only={contender.what}", f"--seed={seed}", f"--threads={threads}"]
    command = [sys.executable, "-m", "bench", study.name, f"--run={work}", *given]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def _reset_peak() -> int:
    """Begin the peak anew and return what the process holds now; 0 off Linux."""
    if sys.platform != "linux":
        return 0
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM") if sys.platform == "linux" else 0


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (found,) = (line for line in lines if line.startswith(name + ":"))
    return 1024 * int(found.split()[1])
