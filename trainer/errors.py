"""The errors of a training job.

TrainerError                 the root: catch this to catch all of them
├── InvalidTrainingFile      a line of a training file does not fit the task
├── InvalidHyperparameter    a hyper-parameter is out of range, or does not fit the base
├── InvalidMethod            the method is unknown, or its config does not fit the base
├── BaseNotLoadable          the base cannot be loaded for this task
├── WrongBase                the job is for another base than the loaded one
├── LossNotFinite            the loss or a gradient became NaN or infinite
├── LossDiverged             the loss has stayed far above the base's own
└── StorageFull              nothing more can be written to the job's folder

RankLost                     another process of the job ended; the job is tried again

Stopped                      no error: the job is to pause or to end; a checkpoint is in its folder
├── Paused
└── Cancelled
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from registry.training_data.lines import MAX_FAULTS, LineFault, shown

Fault = LineFault


class TrainerError(Exception):
    """Any failure of a job; `param` names the field at fault, `details` are JSON values."""

    code: ClassVar[str] = "training_failed"

    def __init__(
        self, message: str, param: str | None = None, details: dict[str, Any] | None = None
    ) -> None:
        self.message, self.param, self.details = message, param, details or {}
        super().__init__(message)


class InvalidTrainingFile(TrainerError):
    """A file is of an unknown kind, or lines of it are wrong.

    Args:
        faults: of the file, in its order; the first ten are kept.
        param: `training_file` or `validation_file`.
    """

    code = "invalid_training_file"

    def __init__(self, faults: Sequence[Fault], param: str = "training_file") -> None:
        self.faults = tuple(Fault.of(one.line, one.message) for one in faults[:MAX_FAULTS])
        message = f"{param}: {shown(self.faults)}"
        lines = [{"line": fault.line, "message": str(fault)} for fault in self.faults]
        super().__init__(message, param, {"faults": lines})


class InvalidHyperparameter(TrainerError):
    """A hyper-parameter is out of range; `param` is its name."""

    code = "invalid_hyperparameter"


class InvalidMethod(TrainerError):
    """The method is not registered, or a field of its config is refused; `param` is the field."""

    code = "invalid_method"


class BaseNotLoadable(TrainerError):
    """The base's folder is missing, malformed, or its kind does not fit the task."""

    code = "base_not_loadable"


class WrongBase(TrainerError):
    """The loaded base has another fingerprint than the job's."""

    code = "base_mismatch"


class LossNotFinite(TrainerError):
    """Training diverged; only the earlier checkpoints are kept.

    Args:
        what: `loss` or `gradient`.
        step: the optimiser's step, from 1.
        rate: the coefficients' learning rate at this step.
        value: NaN or an infinity.
    """

    code = "loss_not_finite"

    def __init__(self, what: str, step: int, rate: float, value: float) -> None:
        self.step, self.rate = step, rate
        super().__init__(
            f"the {what} is {value} at step {step} with learning rate {rate:.3g}; nothing was "
            "published. Try a smaller learning_rate_multiplier, or a longer warm-up",
            "learning_rate_multiplier",
            {"step": step, "learning_rate": rate},
        )


class LossDiverged(TrainerError):
    """The loss stayed far above the base's own; only the earlier checkpoints are kept.

    Args:
        step: the optimiser's step, from 1.
        rate: the coefficients' learning rate at this step.
        loss: of this step.
        most: the limit that it was above for some steps.
    """

    code = "loss_diverged"

    def __init__(self, step: int, rate: float, loss: float, most: float) -> None:
        super().__init__(
            f"the loss is {loss:.3g} at step {step} with learning rate {rate:.3g}, and has been "
            f"above {most:.3g}, far more than the base's own, for some steps; nothing was "
            "published. Try a smaller learning_rate_multiplier",
            "learning_rate_multiplier",
            {"step": step, "learning_rate": rate, "loss": loss},
        )


class StorageFull(TrainerError):
    """The disk of the job's folder is full; the files in it are whole."""

    code = "storage_full"


class RankLost(RuntimeError):
    """Another rank ended or did not answer: this attempt is over, the next one resumes."""


class Stopped(Exception):
    """The job was paused or cancelled; it resumes from its checkpoint when it is run again."""


class Paused(Stopped):
    """The job waits until it is resumed."""


class Cancelled(Stopped):
    """The job does not run again."""
