"""Interleaved timing: every contender once a round, medians over the rounds, ratios."""

import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from adapters_core.memory import keep_freed_memory


def interleaved(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each contender; one round without timing comes first.

    The allocator is told what the server tells it; all contenders run under that.
    """
    keep_freed_memory()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for name in contenders:
        contenders[name]()
    for _ in range(rounds):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in seconds.items()}


def report(name: str, rows: list[dict[str, Any]]) -> None:
    """Print the rows for a person, then everything as the one JSON line."""
    for row in rows:
        print("  ".join(f"{k}={_short(v)}" for k, v in row.items()))
    print(json.dumps({"bench": name, "machine": machine(), "rows": rows}))


def machine() -> dict[str, Any]:
    """Return where and on what code this was measured."""
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "commit": commit or None,
        "date": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
        return names[0] if names else platform.machine()
    except OSError:
        return platform.machine()


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
