"""The first rank's control of the others: starts them, sends orders, and ends them.

When a rank's process ends early, the attempt ends. Mostly a call of torch.distributed fails at
once; where it waits instead, as it may between GPUs, this process exits a moment later. The worker
then starts another attempt, which resumes from the last checkpoint.
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

#: The longest time of a rank to load the base.
READY_S = 3600.0
#: From the early end of a rank to the exit of this process, if no call has failed by then.
NOTICE_S = 15.0
#: The longest time of a rank to end by itself after its last order.
EXIT_S = 5.0
#: The exit code of this process then.
_LOST = 70


class RankPool(DistributedRanks):
    """All ranks of a job, in the first one; a context manager that ends the others.

    They load the base while this process does, and connect at the first training run.

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
        super().__init__(0, len(tasks) + 1, device, self._order, self._why_lost)
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
            with suppress(BrokenPipeError):  # it has ended already
                process.stdin.close()
        if kind is None:
            self.leave()
            self._wait_for_exits()
        self._kill()
        if self._device.type == "cpu":  # NCCL would wait for lost ranks; this process ends soon
            self.leave()

    def begin(self, spec: JobSpec) -> None:
        if not self._is_joined:
            self._connect()
        super().begin(replace(spec, metadata={}))

    def _connect(self) -> None:
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
            raise RankLost(self._why_lost())
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
                raise RankLost(self._why_lost()) from error

    def _why_lost(self) -> str:
        """Return which rank has ended; its exit code may take a moment to be known."""
        until = time.monotonic() + 1.0
        while True:
            for number, process in enumerate(self._processes, 1):
                code = process.poll()
                if code is not None:
                    return f"rank {number} of the job's {self.count} ended with {_ending(code)}"
            if time.monotonic() >= until:
                return f"a rank of the job's {self.count} did not answer in time"
            time.sleep(0.01)

    def _watch(self, number: int, process: "subprocess.Popen[str]") -> None:
        code = process.wait()
        if not self._closing.wait(self._notice_s):
            log.error("rank %d ended with %s; so does this process", number, _ending(code))
            os._exit(_LOST)

    def _wait_for_exits(self) -> None:
        until = time.monotonic() + EXIT_S
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
    with suppress(BrokenPipeError):  # it has ended already, which `_wait_ready` reports
        process.stdin.write(task.model_dump_json() + "\n")
        process.stdin.flush()
    return process


def _ending(code: int) -> str:
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
