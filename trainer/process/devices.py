"""The devices of one job, and the threads of each of its processes.

Pure, and without torch: a worker reports a wrong setting before it waits for jobs.
"""

import os
import re

#: More than the cores or GPUs of one machine.
MAX_RANKS = 64
_GPU = re.compile(r"cuda:\d+")


def devices_of(device: str, ranks: int = 1) -> tuple[str, ...]:
    """Return the device of each rank; a job of one process has one.

    Args:
        device: `auto`, `cpu`, `cuda:1`, or a list: `cuda:0,cuda:1` is one job over both.
        ranks: processes of one job on the CPU; for a list, 1 or its length.

    Raises:
        ValueError: they do not go together; the message says what to give.
    """
    names = tuple(name.strip() for name in device.split(","))
    if len(names) == 1:
        return names if ranks == 1 else _on_the_cpu(names[0], ranks)
    if ranks not in (1, len(names)):
        raise ValueError(f"{ranks} ranks, but {len(names)} devices in {device!r}; leave one out")
    for name in names:
        if not _GPU.fullmatch(name):
            raise ValueError(
                f"device {name!r} in the list {device!r}: a list takes GPUs, such as "
                "cuda:0,cuda:1; for several processes on the CPU give --ranks"
            )
        if names.count(name) > 1:
            raise ValueError(f"device {name!r} is twice in the list {device!r}; give each once")
    if len(names) > MAX_RANKS:
        raise ValueError(f"{len(names)} devices; give at most {MAX_RANKS}")
    return names


def _on_the_cpu(device: str, ranks: int) -> tuple[str, ...]:
    if device not in ("auto", "cpu"):
        raise ValueError(
            f"--ranks {ranks} is for the CPU, the device is {device!r}; for several GPUs, "
            "list them: --device cuda:0,cuda:1"
        )
    if not 1 <= ranks <= MAX_RANKS:
        raise ValueError(f"--ranks {ranks}: give 1 to {MAX_RANKS}")
    return ("cpu",) * ranks


def threads_of(threads: int | None, ranks: int) -> int | None:
    """Return the threads of each process; if not given, several processes share the cores."""
    if threads is not None or ranks == 1:
        return threads
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, cores // ranks)
