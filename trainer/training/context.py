"""What every part of a job's run works with: its spec, base, data, folder and reporter."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from registry.jobs.spec import PEFT_TASKS, Hyperparameters, JobSpec
from trainer.base import LoadedBase
from trainer.errors import Cancelled, Paused
from trainer.interfaces import Reporter
from trainer.tasks.task import TrainingTask
from trainer.training.data import Data
from trainer.training.evaluate import evaluation_batch
from trainer.training.presets import Setting, setting_of
from trainer.training.ranks import Ranks
from trainer.training.schedule import Schedule, schedule_of


@dataclass(frozen=True)
class JobContext:
    """One training run, validated.

    Args:
        spec: of the job; its method is a registered one, or `auto` until that is chosen.
        base: the model that is trained on.
        task: of the job, made for this base.
        data: its examples.
        folder: the run's own; checkpoints and results are written there.
        report: receives news, and decides whether the run goes on.
        ranks: the processes that share each step.
    """

    spec: JobSpec
    base: LoadedBase
    task: TrainingTask
    data: Data
    folder: Path
    report: Reporter = field(default_factory=Reporter)
    ranks: Ranks = field(default_factory=Ranks)

    @property
    def hyper(self) -> Hyperparameters:
        """Return the job's hyper-parameters."""
        return self.spec.hyperparameters

    @cached_property
    def schedule(self) -> Schedule:
        """Return the steps of the run."""
        return schedule_of(self.hyper, len(self.data.train), self.spec.seed)

    @property
    def evaluation_batch(self) -> int:
        """Return the examples of one forward pass of an evaluation."""
        return evaluation_batch(self.hyper)

    def check_wanted(self) -> None:
        """Raise Paused or Cancelled if the run is to end."""
        check_wanted(self.report)


def check_wanted(report: Reporter) -> None:
    """Raise Paused or Cancelled if a job is to end."""
    wanted = report.wanted()
    if wanted != "go":
        raise Paused if wanted == "pause" else Cancelled


def checking(report: Reporter) -> Callable[[], None]:
    """Return a function that raises Paused or Cancelled if a job is to end."""
    return lambda: check_wanted(report)


def job_setting(spec: JobSpec, base: LoadedBase) -> Setting:
    """Return the methods and rates of a job on its base.

    Raises:
        InvalidMethod, InvalidHyperparameter: the base cannot be trained with them.
    """
    task_type = PEFT_TASKS.get(spec.task)
    return setting_of(spec.method, spec.method_config, spec.hyperparameters, base.spec, task_type)
