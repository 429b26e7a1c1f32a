"""The orders of the first rank to another one: JSON lines, the first of them a RankTask.

    {"join": true}        meet the others
    {"begin": SPEC}       prepare a training run of this job
    {"compare": true}     check that the tensors that are not trained equal the first rank's
    {"step": 12}          compute this rank's share of the step's gradients

The end of its input ends a rank. It answers once, when it has loaded the base: `{"ready": true}`,
or `{"error": "why"}`.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from registry.jobs.spec import Task
from trainer.interfaces import JobFiles
from trainer.process.settings import WorkerSettings


class RankTask(BaseModel):
    """One rank beyond the first.

    Args:
        settings: the worker's.
        number: of this rank, from 1.
        task: of the job.
        files: of the job.
        folder: the job's own.
        timeout_s: the longest wait for the other ranks within a step.
        parent: the first rank's process id; the rank exits if getppid() differs.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    settings: WorkerSettings
    number: int
    task: Task
    files: JobFiles
    folder: Path
    timeout_s: float
    parent: int

    @property
    def device(self) -> str:
        """Return the device of this rank."""
        return self.settings.devices[self.number]

    @property
    def meeting(self) -> Path:
        """Return the file at which the ranks meet; each first rank has its own."""
        return self.folder / f"ranks-{self.parent}"
