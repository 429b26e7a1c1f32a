"""One training job, from its spec to the adapter's two files.

    validate, evaluate, train, evaluate, write, read back

Everything lies in the job's own folder, and a job that is run again there goes on where it stood.
Nothing is published here: the caller does that with the two files.
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import nn

from adapters_core.adapter import Adapter, read_adapter
from adapters_core.base import BaseSpec
from adapters_core.errors import AdapterError
from adapters_core.export import CONFIG_NAME, WEIGHTS_NAME
from registry.jobs.comparison import LOSS, is_better
from registry.jobs.spec import AUTO, PEFT_TASKS, Hyperparameters, JobSpec
from trainer.base import LoadedBase
from trainer.checkpoint import write_whole
from trainer.errors import Cancelled, Paused, TrainerError, WrongBase
from trainer.interfaces import JobFiles, Reporter, Trained
from trainer.tasks.choice import task_of
from trainer.tasks.task import TrainingTask
from trainer.training.auto import best_of_all
from trainer.training.base_rate import Course, rate_for
from trainer.training.data import Data, open_data
from trainer.training.evaluate import at_once, evaluate, rehearse
from trainer.training.presets import Setting, setting_of
from trainer.training.ranks import Ranks
from trainer.training.schedule import Schedule, check, schedule_of
from trainer.training.train import Trainer
from trainer.training.trainable import TrainableAdapter


def run_job(
    spec: JobSpec,
    base: LoadedBase,
    files: JobFiles,
    folder: Path,
    report: Reporter,
    ranks: Ranks | None = None,
) -> Trained:
    """Train an adapter; its two files lie in `folder` afterwards.

    Args:
        spec: of the job.
        base: given back as it was, whatever happens.
        files: uploaded for the job.
        folder: the job's own, on one disk; what lies there of an earlier run is gone on from.
        report: hears of everything; asked once a step what is wanted.
        ranks: who share each step's examples; None: this process has them all.

    Raises:
        TrainerError: see trainer/errors.py.
        Paused, Cancelled: the reporter wanted it; a checkpoint lies in the folder.
        RankLost: another rank died, or does not answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ranks = ranks or Ranks()
    if spec.base_fingerprint and spec.base_fingerprint != base.spec.fingerprint:
        raise WrongBase(
            f"the job is for base {spec.base_name!r} with {spec.base_fingerprint}; "
            f"the base that is loaded is {base.spec.name!r} with {base.spec.fingerprint}",
            "model",
        )
    check(spec.hyperparameters)
    task = task_of(spec.task, base, spec.hyperparameters, report)
    _check_method(spec, base)  # what is wrong with it is said before the files are read
    data = open_data(files, task, spec.seed, folder / "data.json", _obeying(report))
    _tell_of_data(data, spec.hyperparameters, report)
    report.validated()
    if spec.method == AUTO:
        num_steps = schedule_of(spec.hyperparameters, len(data.train), spec.seed).num_steps

        def tried(trial: JobSpec, own: Path, quiet: Reporter) -> Trained:
            return _trained(trial, base, task, data, own, quiet, ranks)

        spec = best_of_all(spec, num_steps, tried, folder, report)
    return _trained(spec, base, task, data, folder, report, ranks)


def _check_method(spec: JobSpec, base: LoadedBase) -> None:
    """Refuse a method, a config or layers that the base cannot be trained with."""
    if spec.method == AUTO:
        return
    _setting(spec, base)


def _setting(spec: JobSpec, base: LoadedBase) -> Setting:
    hyper, task_type = spec.hyperparameters, PEFT_TASKS.get(spec.task)
    return setting_of(spec.method, spec.method_config, hyper, base.spec, task_type)


def _trained(
    spec: JobSpec,
    base: LoadedBase,
    task: TrainingTask,
    data: Data,
    folder: Path,
    report: Reporter,
    ranks: Ranks,
) -> Trained:
    """Train with one method, evaluate before and after, write and read back."""
    ranks.begin(spec)
    setting = _setting(spec, base)
    trainable = TrainableAdapter(base, setting, task, spec.seed, _preparing(spec.method, report))
    try:
        with less_memory(base.model, spec.hyperparameters.gradient_checkpointing):
            size = at_once(spec.hyperparameters)
            before = _before(trainable, data, size, folder, report)
            rehearse(trainable, data.held_out, size)
            schedule = schedule_of(spec.hyperparameters, len(data.train), spec.seed)
            course = Course(data.train, schedule, spec.hyperparameters, _obeying(report))
            rates = rate_for(trainable, setting, course, folder, report)
            setting = replace(setting, rates=rates)
            trainer = _trainer(
                spec, setting, trainable, data, schedule, folder, report, ranks, before[LOSS]
            )
            progress = trainer.run()
        after = evaluate(trainable, data.held_out, size, _obeying(report))
        report.metrics(progress.step, after)
        trainable.write(folder)
    finally:
        trainable.undo()
        base.model.eval()
    adapter = _read_back(folder, base)
    config = {k: v for k, v in json.loads((folder / CONFIG_NAME).read_text()).items() if v}
    level = "info" if is_better(LOSS, after[LOSS], before[LOSS]) else "warn"
    report.event(level, _summary(before, after), {"before": before, "after": after})
    return Trained(
        folder=folder,
        metrics=after | {"train_loss": progress.train_loss},
        base_metrics=before,
        steps=progress.step,
        seed=spec.seed,
        data_digest=data.facts.digest,
        method=spec.method,
        method_config={k: v for k, v in config.items() if k not in _NOT_OF_THE_METHOD},
        code_version=code_version(),
        labels=task.labels,
        details={
            "digest": adapter.description.digest,
            "data": asdict(data.facts),
            "learning_rates": asdict(setting.rates),
            "hyperparameters": asdict(spec.hyperparameters),
            "ranks": ranks.count,
        },
    )


#: The longest that a job makes its layers ready without a word.
_QUIET_S = 5.0
#: Of adapter_config.json, what says nothing of the method.
_NOT_OF_THE_METHOD = frozenset(
    ("base_model_name_or_path", "task_type", "inference_mode", "bias", "modules_to_save")
    + ("id2label",)
)


def _trainer(
    spec: JobSpec,
    setting: Setting,
    trainable: TrainableAdapter,
    data: Data,
    schedule: Schedule,
    folder: Path,
    report: Reporter,
    ranks: Ranks,
    base_loss: float,
) -> Trainer:
    hyper = spec.hyperparameters
    # A checkpoint of another data, base or setting is not gone on from.
    fits = {"job": spec.id, "data": data.facts.digest, "base": trainable.base.spec.fingerprint}
    fits |= {"method": _shown(setting), "hyper": json.dumps(asdict(hyper), sort_keys=True)}
    report.event(
        "info",
        f"training {spec.method} on {len(setting.targets)} layers, {schedule.num_steps} steps of "
        f"{schedule.batch_size} examples, learning rate {setting.rates.coefficients:.3g}"
        + (f", by {ranks.count} processes" if ranks.count > 1 else ""),
        {"method": setting.method.config(), "learning_rates": asdict(setting.rates)},
    )
    _tell_of_cuts(setting, trainable.base.spec, report)
    return Trainer(
        trainable,
        data.train,
        data.held_out,
        schedule,
        hyper,
        setting.rates,
        folder,
        report,
        fits,
        ranks,
        base_loss,
    )


def _shown(setting: Setting) -> str:
    """Return what a checkpoint is held against: the method, and what differs from it."""
    others = {t: str(own) for t, own in setting.methods.items() if own != setting.method}
    more = setting.said | others
    return str(setting.method) + (json.dumps(more, sort_keys=True) if more else "")


def _before(
    trainable: TrainableAdapter, data: Data, size: int, folder: Path, report: Reporter
) -> dict[str, float]:
    """Return the metrics of the base itself, computed once for a job.

    A fresh adapter changes nothing, so these are the ones before training, too.
    """
    path = folder / "before.json"
    if path.exists():
        known = json.loads(path.read_text())
        if known["digest"] == data.facts.digest:
            return dict(known["metrics"])
    with trainable.silent():
        metrics = evaluate(trainable, data.held_out, size, _obeying(report))
    write_whole(path, json.dumps({"digest": data.facts.digest, "metrics": metrics}).encode())
    report.metrics(0, metrics)
    return metrics


def _read_back(folder: Path, base: LoadedBase) -> Adapter:
    """Return the finished adapter as a server reads it: what fails here would fail there."""
    try:
        return read_adapter(folder / WEIGHTS_NAME, (folder / CONFIG_NAME).read_bytes(), base.spec)
    except AdapterError as error:
        raise TrainerError(f"the trained adapter is of no use: {error.message}") from error


def _preparing(method: str, report: Reporter) -> Callable[[int, int], None]:
    """Return what tells, now and then, how many layers are ready to be trained, and obeys."""
    obey, last = _obeying(report), time.monotonic()

    def tell(done: int, count: int) -> None:
        nonlocal last
        obey()
        if time.monotonic() - last >= _QUIET_S:
            last = time.monotonic()
            report.event("info", f"{method}: {done} of {count} layers are ready to be trained")

    return tell


def _obeying(report: Reporter) -> Callable[[], None]:
    """Return what raises when the job is not to go on."""

    def obey() -> None:
        wanted = report.wanted()
        if wanted != "go":
            raise Paused if wanted == "pause" else Cancelled

    return obey


@contextmanager
def less_memory(model: nn.Module, wanted: bool) -> Any:
    """Let the model keep no activations but each layer's input while the block runs."""
    if not wanted:
        yield
        return
    own: Any = model
    # transformers 5.20 gave it another name.
    what = "activation" if hasattr(own, "activation_checkpointing_enable") else "gradient"
    # A cache of keys and values would keep what is to be thrown away; transformers warns of it.
    cached = getattr(own.config, "use_cache", None)
    if cached is not None:
        own.config.use_cache = False
    arguments = {f"{what}_checkpointing_kwargs": {"use_reentrant": False}}
    getattr(own, f"{what}_checkpointing_enable")(**arguments)
    try:
        yield
    finally:
        getattr(own, f"{what}_checkpointing_disable")()
        if cached is not None:
            own.config.use_cache = cached


def _tell_of_data(data: Data, hyper: Hyperparameters, report: Reporter) -> None:
    facts = data.facts
    report.event(
        "info",
        f"{facts.num_train} training and {facts.num_held_out} held-out examples, "
        f"{facts.num_tokens} tokens, {facts.num_trained_tokens} of them learned",
        asdict(facts),
    )
    if facts.num_cut:
        report.event(
            "warn",
            f"{facts.num_cut} examples were cut at {hyper.max_length} tokens, "
            f"{facts.num_cut_tokens} tokens in all",
        )
    if facts.num_rewritten:
        report.event(
            "warn",
            f"{facts.num_rewritten} examples have answers that the base cannot write as they are: "
            f"{facts.rewritten}",
        )


def _tell_of_cuts(setting: Setting, base: BaseSpec, report: Reporter) -> None:
    """Say which layers are too small for the method as it was asked for."""
    fitted = {path: own.fitted(base.targets[path]) for path, own in setting.methods.items()}
    small = {path: own for path, own in fitted.items() if own != setting.methods[path]}
    if small:
        path, own = next(iter(small.items()))
        config = json.dumps(own.config())
        text = f"{len(small)} layers are too small for this config; {path} is trained with {config}"
        report.event("warn", text, {"layers": list(small)})


def _summary(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    shown = (
        f"{name} {after[name]:.4f} ({'better' if is_better(name, after[name], value) else 'not'}"
        f"{'' if is_better(name, after[name], value) else ' better'} than {value:.4f})"
        for name, value in before.items()
    )
    return "held out: " + ", ".join(shown)


def code_version() -> str:
    """Return this program's version."""
    try:
        return version("overtone")
    except PackageNotFoundError:
        return "unknown"
