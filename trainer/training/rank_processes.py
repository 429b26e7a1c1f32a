"""The first rank's side of the others: starts them, gives orders, and sees to it that none hangs.

A rank that dies ends the attempt. Mostly a call of torch.distributed fails at once; where it would
wait instead, as it may between GPUs, the whole process ends a moment later. Its worker sees a dead
process, and the job goes on from its last checkpoint.
"""

import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from registry.jobs.spec import JobSpec, Task
from trainer.errors import RankLost
from trainer.interfaces import JobFiles
from trainer.process.settings import WorkerSettings
from trainer.training.rank_task import RankTask
from trainer.training.ranks import ANSWER_S, DistributedRanks

log = logging.getLogger(__name__)

#: For a rank to load the base.
READY_S = 3600.0
#: From a rank's death to ours, where nothing else has noticed it.
NOTICE_S = 15.0
#: For a rank to end by itself once its orders end.
PARTING_S = 5.0
_LOST = 70  # our exit code then


class RankPool(DistributedRanks):
    """All ranks of a job, seen from the first; a context manager that ends the others.

    They load the base while this process does, and are met at the first training run.

    Args:
        tasks: of the others.
        device: of this one.
        ready_s, notice_s: see above.
    """

    def __init__(
        self,
        tasks: Sequence[RankTask],
        device: torch.device,
        ready_s: float = READY_S,
        notice_s: float = NOTICE_S,
    ) -> None:
        super().__init__(0, len(tasks) + 1, device, self._order, self._what_became)
        self._tasks, self._ready_s, self._notice_s = tasks, ready_s, notice_s
        self._closing, self._is_joined = threading.Event(), False
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        try:
            for task in self._tasks:
                self._processes.append(_start(task))
        except BaseException:
            self._kill()
            raise
        for number, process in enumerate(self._processes, 1):
            name = f"rank-{number}"
            threading.Thread(
                target=self._watch, args=(number, process), name=name, daemon=True
            ).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        for process in self._processes:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it is dead already
                process.stdin.close()
        if kind is None:
            self.leave()
            self._part()
        self._kill()
        if self._device.type == "cpu":  # NCCL waits for the dead; this process ends soon
            self.leave()

    def begin(self, spec: JobSpec) -> None:
        if not self._is_joined:
            self._meet()
        super().begin(replace(spec, metadata={}))

    def _meet(self) -> None:
        until = time.monotonic() + self._ready_s
        for number, process in enumerate(self._processes, 1):
            self._wait_ready(number, process, until)
        self._order({"join": True})
        self.join(self._tasks[0].meeting, self._tasks[0].timeout_s)
        self._is_joined = True

    def _wait_ready(self, number: int, process: "subprocess.Popen[str]", until: float) -> None:
        assert process.stdout is not None
        left = max(0.0, until - time.monotonic())
        if not select.select([process.stdout], [], [], left)[0]:
            raise RankLost(f"rank {number} had not loaded the base after {self._ready_s:g} s")
        line = process.stdout.readline()
        if not line:
            raise RankLost(self._what_became())
        why = json.loads(line).get("error")
        if why is not None:
            device = self._tasks[number - 1].device
            raise RankLost(f"rank {number} on {device} could not load the base: {why}")

    def _order(self, order: dict[str, Any]) -> None:
        line = json.dumps(order) + "\n"
        for process in self._processes:
            assert process.stdin is not None
            try:
                process.stdin.write(line)
                process.stdin.flush()
            except BrokenPipeError as error:
                raise RankLost(self._what_became()) from error

    def _what_became(self) -> str:
        """Return which rank is dead, which may take a moment to be seen."""
        until = time.monotonic() + 1.0
        while True:
            for number, process in enumerate(self._processes, 1):
                code = process.poll()
                if code is not None:
                    return f"rank {number} of the job's {self.count} ended with {_named(code)}"
            if time.monotonic() >= until:
                return f"a rank of the job's {self.count} did not answer in time"
            time.sleep(0.01)

    def _watch(self, number: int, process: "subprocess.Popen[str]") -> None:
        code = process.wait()
        if not self._closing.wait(self._notice_s):
            log.error("rank %d ended with %s; so does this process", number, _named(code))
            os._exit(_LOST)

    def _part(self) -> None:
        until = time.monotonic() + PARTING_S
        for process in self._processes:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                return

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _start(task: RankTask) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer.job.rank"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it died at once; who waits for it finds it
        process.stdin.write(task.model_dump_json() + "\n")
        process.stdin.flush()
    return process


def _named(code: int) -> str:
    return f"code {code}" if code >= 0 else signal.Signals(-code).name


def rank_pool(
    settings: WorkerSettings,
    task: Task,
    files: JobFiles,
    folder: Path,
    timeout_s: float = ANSWER_S,
    **bounds: float,
) -> RankPool:
    """Return the ranks of a job, not yet started.

    Args:
        settings: the worker's; its devices are the ranks'.
        task: of the job.
        files: of the job.
        folder: the job's own.
        timeout_s: the longest wait for each other within a step.
        bounds: see `RankPool`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [
        RankTask(
            settings=settings,
            number=number,
            task=task,
            files=files,
            folder=folder,
            timeout_s=timeout_s,
            parent=os.getpid(),
        )
        for number in range(1, len(settings.devices))
    ]
    tasks[0].meeting.unlink(missing_ok=True)  # of an ended process with the same id
    return RankPool(tasks, torch.device(settings.devices[0]), **bounds)
