"""The process of one job: `python -m trainer.job.child`, started by a worker, its task on stdin.

It is killed when its worker's process ends, so that no two processes run one job. On SIGTERM it
writes a checkpoint and gives the job back.
"""

import ctypes
import logging
import os
import signal
import sys
import threading

from adapters_core.starting import uncollected_imports
from trainer.process.child_task import ChildTask
from trainer.process.priority import lower_priority

PR_SET_PDEATHSIG = 1


def main() -> int:
    """Do the task on standard input; return the process's exit code."""
    task = ChildTask.model_validate_json(sys.stdin.read())
    if not tie_to(task.parent):
        return 1
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lower_priority(task.settings.nice)
    _work(task, stop)
    return 0


def tie_to(parent: int) -> bool:
    """Have this process killed when its parent ends; return whether that parent still runs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def _work(task: ChildTask, stop: threading.Event) -> None:
    with uncollected_imports():
        from registry.connect import connect
        from trainer.job.attempt import Attempt

    settings = task.settings
    with connect(
        settings.registry,
        settings.data,
        store=settings.store,
        cache_bytes=settings.store_cache_bytes,
    ) as registry:
        Attempt(task, registry, stop).run()


if __name__ == "__main__":
    sys.exit(main())
