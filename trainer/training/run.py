"""One training job, from its spec to the adapter's two files.

    validate, evaluate, train, evaluate, write, read back

Everything is in the job's own folder, and a job that runs there again resumes from its checkpoint.
Nothing is published here: the caller does that with the two files.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from adapters_core.errors import AdapterError
from adapters_core.format.read import Adapter, read_adapter
from adapters_core.format.write import CONFIG_NAME, WEIGHTS_NAME
from registry.jobs.comparison import LOSS
from registry.jobs.spec import AUTO, JobSpec
from trainer.base import LoadedBase
from trainer.checkpoint import write_whole
from trainer.errors import TrainerError, WrongBase
from trainer.interfaces import JobFiles, Reporter, Trained
from trainer.tasks.choice import task_of
from trainer.training.auto import with_best_method
from trainer.training.base_rate import rates_for
from trainer.training.context import JobContext, checking, job_setting
from trainer.training.data import open_data
from trainer.training.evaluate import evaluate, rehearse
from trainer.training.gradient_checkpointing import gradient_checkpointing
from trainer.training.messages import (
    basis_progress,
    layer_progress,
    report_data,
    report_result,
    report_start,
)
from trainer.training.presets import Setting
from trainer.training.ranks import Ranks
from trainer.training.schedule import check
from trainer.training.train import Trainer
from trainer.training.trainable import TrainableAdapter

#: Fields of adapter_config.json that do not describe the method.
_NOT_OF_THE_METHOD = frozenset(
    ("base_model_name_or_path", "task_type", "inference_mode", "bias", "modules_to_save")
    + ("id2label",)
)


def run_job(
    spec: JobSpec,
    base: LoadedBase,
    files: JobFiles,
    folder: Path,
    report: Reporter,
    ranks: Ranks | None = None,
) -> Trained:
    """Train an adapter; its two files are in `folder` afterwards.

    Args:
        spec: of the job.
        base: unchanged afterwards, also after an error.
        files: uploaded for the job.
        folder: the job's own, on one disk; a run resumes from the checkpoints in it.
        report: receives all news, and is asked once a step whether the run goes on.
        ranks: the processes that share each step's examples; None: this one alone.

    Raises:
        TrainerError: see trainer/errors.py.
        Paused, Cancelled: as the reporter wanted; a checkpoint is in the folder.
        RankLost: another rank ended, or does not answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    job = _validated(spec, base, files, folder, report, ranks or Ranks())
    report.validated()
    if spec.method == AUTO:
        job = with_best_method(job, _train)
    return _train(job)


def _validated(
    spec: JobSpec,
    base: LoadedBase,
    files: JobFiles,
    folder: Path,
    report: Reporter,
    ranks: Ranks,
) -> JobContext:
    """Check a job's settings, then all its examples."""
    if spec.base_fingerprint and spec.base_fingerprint != base.spec.fingerprint:
        raise WrongBase(
            f"the job is for base {spec.base_name!r} with {spec.base_fingerprint}; "
            f"the base that is loaded is {base.spec.name!r} with {base.spec.fingerprint}",
            "model",
        )
    check(spec.hyperparameters)
    task = task_of(spec.task, base, spec.hyperparameters, report)
    if spec.method != AUTO:
        job_setting(spec, base)
    data = open_data(files, task, spec.seed, folder / "data.json", checking(report))
    job = JobContext(spec, base, task, data, folder, report, ranks)
    report_data(job)
    return job


def _train(job: JobContext) -> Trained:
    """Train with one method, evaluate before and after, write and read back."""
    job.ranks.begin(job.spec)
    setting = job_setting(job.spec, job.base)
    trainable = TrainableAdapter(
        job.base, setting, job.task, job.spec.seed, layer_progress(job), basis_progress(job)
    )
    try:
        with gradient_checkpointing(job.base.model, job.hyper.gradient_checkpointing):
            before = _base_metrics(job, trainable)
            rehearse(trainable, job.data.held_out, job.evaluation_batch)
            setting = replace(setting, rates=rates_for(job, trainable, setting))
            report_start(job, setting)
            trainer = Trainer(job, trainable, setting.rates, _fits(job, setting), before[LOSS])
            progress = trainer.run()
        after = evaluate(trainable, job.data.held_out, job.evaluation_batch, job.check_wanted)
        job.report.metrics(progress.step, after)
        trainable.write(job.folder)
    finally:
        trainable.undo()
        job.base.model.eval()
    adapter = _read_back(job)
    report_result(job, before, after)
    return Trained(
        metrics=after | {"train_loss": progress.train_loss},
        base_metrics=before,
        steps=progress.step,
        **_origin(job, setting, adapter),
    )


def _fits(job: JobContext, setting: Setting) -> dict[str, Any]:
    """Return the values that a checkpoint must have for the run to resume from it."""
    hyper = {k: v for k, v in asdict(job.hyper).items() if k != "checkpoint_samples"}
    others = {t: str(own) for t, own in setting.methods.items() if own != setting.method}
    more = setting.training_fields | others
    return {
        "job": job.spec.id,
        "data": job.data.facts.digest,
        "base": job.base.spec.fingerprint,
        "method": str(setting.method) + (json.dumps(more, sort_keys=True) if more else ""),
        "hyper": json.dumps(hyper, sort_keys=True),
    }


def _base_metrics(job: JobContext, trainable: TrainableAdapter) -> dict[str, float]:
    """Return the held-out metrics of the base, computed once for a job.

    A fresh adapter changes nothing, so these are also the metrics before training.
    """
    path, digest = job.folder / "before.json", job.data.facts.digest
    if path.exists():
        known = json.loads(path.read_text())
        if known["digest"] == digest:
            return dict(known["metrics"])
    with trainable.without_adapter():
        metrics = evaluate(trainable, job.data.held_out, job.evaluation_batch, job.check_wanted)
    write_whole(path, json.dumps({"digest": digest, "metrics": metrics}).encode())
    job.report.metrics(0, metrics)
    return metrics


def _read_back(job: JobContext) -> Adapter:
    """Return the finished adapter, read by the server's own code."""
    config = (job.folder / CONFIG_NAME).read_bytes()
    try:
        return read_adapter(job.folder / WEIGHTS_NAME, config, job.base.spec)
    except AdapterError as error:
        raise TrainerError(f"the trained adapter cannot be served: {error.message}") from error


def _origin(job: JobContext, setting: Setting, adapter: Adapter) -> Mapping[str, Any]:
    """Return the fields of `Trained` that say where the adapter is and how it was made."""
    config = json.loads((job.folder / CONFIG_NAME).read_text())
    return {
        "folder": job.folder,
        "seed": job.spec.seed,
        "data_digest": job.data.facts.digest,
        "method": job.spec.method,
        "method_config": {k: v for k, v in config.items() if v and k not in _NOT_OF_THE_METHOD},
        "code_version": _code_version(),
        "labels": job.task.labels,
        "details": {
            "digest": adapter.description.digest,
            "data": asdict(job.data.facts),
            "learning_rates": asdict(setting.rates),
            "hyperparameters": asdict(job.hyper),
            "ranks": job.ranks.count,
        },
    }


def _code_version() -> str:
    try:
        return version("overtone")
    except PackageNotFoundError:
        return "unknown"
