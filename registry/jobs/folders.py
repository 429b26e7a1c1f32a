"""The folders in which jobs' processes work: one a claim, renamed from the claim before.

    <folder>/<job>/<fence>/    checkpoints, the curve's picture, the finished adapter

A new claim renames the folder of the one before. So the paths of a process that was believed dead
do not exist any more: it cannot write into what another process reads.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from registry.common.fence import Fence
from registry.errors import FenceLost
from registry.jobs.record import JOB_ID, check_job_id


class JobFolders:
    """The jobs' folders; machines that share them can go on with each other's jobs.

    Args:
        folder: made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, fence: Fence) -> Path:
        """Return this claim's folder, with all that earlier ones have left.

        Raises:
            FenceLost: a later claim has taken it already.
        """
        mine = self._of(fence)
        for _ in range(100):  # other claims may rename it meanwhile, each to a later number
            mine.parent.mkdir(parents=True, exist_ok=True)
            latest = self._latest(fence.job)
            if latest > fence.number:
                break
            if latest == fence.number:
                return mine
            if latest == 0:
                mine.mkdir(exist_ok=True)
                continue
            with suppress(FileNotFoundError):
                os.rename(mine.parent / str(latest), mine)
        raise FenceLost(f"job {fence.job!r} is held by another attempt now")

    def newest(self, job_id: str) -> Path | None:
        """Return the folder of a job's latest claim, if any is there."""
        latest = self._latest(check_job_id(job_id))
        return self._folder / job_id / str(latest) if latest else None

    def jobs(self) -> list[str]:
        """Return the ids of all jobs that have a folder."""
        return [id_ for id_, _ in self.all()]

    def all(self) -> Iterator[tuple[str, Path]]:
        """Return every job's folder that is there: the job's id and the path."""
        for path in self._folder.glob("*"):
            if JOB_ID.fullmatch(path.name):
                yield path.name, path

    def remove(self, job_id: str) -> None:
        """Remove all folders of a job that has ended. Safe to call twice."""
        shutil.rmtree(self._folder / check_job_id(job_id), ignore_errors=True)

    def _of(self, fence: Fence) -> Path:
        return self._folder / check_job_id(fence.job) / str(fence.number)

    def _latest(self, job_id: str) -> int:
        names = [path.name for path in (self._folder / job_id).glob("*")]
        return max((int(name) for name in names if name.isdecimal()), default=0)
