"""On which devices one job runs, and with how many threads each of its processes computes.

Pure, and without torch: a worker says what is wrong with its words before it waits for jobs.
"""

import os
import re

#: More processes of one job on one machine than anybody has cores or GPUs for.
MAX_RANKS = 64
_GPU = re.compile(r"cuda:\d+")


def devices_of(device: str, ranks: int = 1) -> tuple[str, ...]:
    """Return the device of each rank; one for a job that a single process does.

    Args:
        device: `auto`, `cpu`, `cuda:1`, or a list: `cuda:0,cuda:1` is one job over both.
        ranks: processes of one job on the CPU; for a list, 1 or its length.

    Raises:
        ValueError: they do not go together; the message says what does.
    """
    names = tuple(name.strip() for name in device.split(","))
    if len(names) == 1:
        return names if ranks == 1 else _on_the_cpu(names[0], ranks)
    if ranks not in (1, len(names)):
        raise ValueError(f"{ranks} ranks, but {len(names)} devices in {device!r}; leave one out")
    for name in names:
        if not _GPU.fullmatch(name):
            raise ValueError(
                f"device {name!r} in the list {device!r}: a list is of GPUs, such as "
                "cuda:0,cuda:1; several processes on the CPU are --ranks"
            )
        if names.count(name) > 1:
            raise ValueError(f"device {name!r} is twice in the list {device!r}; give each once")
    if len(names) > MAX_RANKS:
        raise ValueError(f"{len(names)} devices; at most {MAX_RANKS} are taken")
    return names


def _on_the_cpu(device: str, ranks: int) -> tuple[str, ...]:
    if device not in ("auto", "cpu"):
        raise ValueError(
            f"--ranks {ranks} is for the CPU, the device is {device!r}; for several GPUs, "
            "list them: --device cuda:0,cuda:1"
        )
    if not 1 <= ranks <= MAX_RANKS:
        raise ValueError(f"--ranks {ranks}: 1 to {MAX_RANKS} are taken")
    return ("cpu",) * ranks


def threads_of(threads: int | None, ranks: int) -> int | None:
    """Return the threads of each process: several share the cores where nobody said how many."""
    if threads is not None or ranks == 1:
        return threads
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, cores // ranks)
