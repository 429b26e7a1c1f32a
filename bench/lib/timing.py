"""Interleaved timing: every contender once a round, medians over the rounds, ratios."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from adapters_core.malloc import keep_freed_memory
from server.processor.choice import VARIABLE, this_processor


def interleaved(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each contender; one round without timing comes first.

    The allocator has the server's settings, for all contenders.
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
    print(json.dumps({"bench": name, "machine": machine(), "rows": rows}), flush=True)


def machine() -> dict[str, Any]:
    """Return where and on what code this was measured; of torch only if this process uses it."""
    torch = sys.modules.get("torch")
    found: dict[str, Any] = {
        "processor": this_processor().name,
        "matrix_setting": os.environ.get(VARIABLE),
        "cores": os.cpu_count(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }
    if torch is not None:
        found["threads"] = torch.get_num_threads()
        found["torch"] = torch.__version__
        is_gpu = torch.cuda.is_available()
        found["device"] = torch.cuda.get_device_name() if is_gpu else "cpu"
    return found


def commit() -> str | None:
    """Return the commit of the checkout this runs from, with a `+` if it was changed."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():  # installed: a checkout around it is another project's
        return None
    git = ["git", "-C", str(checkout), "describe", "--always", "--dirty=+", "--exclude", "*"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
