"""What a job reads, what it reports while it runs, and what it returns."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from registry.jobs.samples import Samples

Wanted = Literal["go", "pause", "cancel"]


class Reporter:
    """Receives a running job's news; an exception that it raises ends the run, which can resume.

    This one ignores all of them and never stops a job; others override methods.
    """

    def event(self, level: str, message: str, data: dict[str, Any] | None = None) -> None:
        """Take a line for people; `level` is `info`, `warn` or `error`."""

    def validated(self) -> None:
        """Take that the job's settings and files are valid; may be called twice."""

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Take the metrics of an optimiser step, counted from 1; 0 is before all of them."""

    def checkpoint(self, step: int, name: str) -> None:
        """Take the name of a checkpoint that is complete on disk."""

    def samples(self, given: Samples) -> None:
        """Take what the adapter answered at a checkpoint, or why it answered nothing."""

    def progress(self, step: int, num_steps: int, seconds_left: float | None) -> None:
        """Take the number of finished steps; the time left is None while it is unknown."""

    def wanted(self) -> Wanted:
        """Return what the job is to do; called once a step."""
        return "go"


@dataclass(frozen=True)
class JobFiles:
    """The uploaded files of a job, on this machine; their first bytes tell their kind.

    Args:
        training: JSONL, CSV, or a zip of images.
        validation: of the same kinds; None holds out a part of the first.
    """

    training: Path
    validation: Path | None = None


@dataclass(frozen=True)
class Trained:
    """A finished job.

    Args:
        folder: with `adapter_model.safetensors` and `adapter_config.json`.
        metrics: on the held-out examples, and `train_loss`.
        base_metrics: of the base on the same examples.
        steps: of the optimiser.
        seed: of all random numbers.
        data_digest: `sha256:…` over the training and the validation file.
        method: the trained one, also of a job with `auto`.
        method_config: its whole config, with the fields of adapter_config.json.
        code_version: of this program.
        labels: of a classifier, in the order of its head's rows.
        details: further JSON values for the version's record.
    """

    folder: Path
    metrics: dict[str, float]
    base_metrics: dict[str, float]
    steps: int
    seed: int
    data_digest: str
    method: str
    method_config: dict[str, Any]
    code_version: str
    labels: tuple[str, ...] | None = None
    details: dict[str, Any] = field(default_factory=dict)
