"""Time on a device: by its own events, and by the host's clock."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

Run = Callable[[], object]


@dataclass(frozen=True)
class Seconds:
    """Median seconds of a call: by the host's clock and by events, which a CPU has none of."""

    wall: float
    device: float | None


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_turns(
    contenders: Mapping[str, Run], device: torch.device, rounds: int, calls: int
) -> dict[str, Seconds]:
    """Return what one call of each contender takes.

    Args:
        contenders: by name; each is called three times first: the second time steps are recorded.
        device: where they run.
        rounds: of all contenders in turns; medians over these.
        calls: of a contender in a round.
    """
    for run in contenders.values():
        for _ in range(3):
            run()
    taken: dict[str, list[tuple[float, float | None]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            taken[name].append(_round(run, device, calls))
    return {name: _median(rounds_of) for name, rounds_of in taken.items()}


def _round(run: Run, device: torch.device, calls: int) -> tuple[float, float | None]:
    """Return the seconds of one call in a row of them, on the host and on the device."""
    begun, ended = _event(device), _event(device)
    wait_for(device)
    started = time.perf_counter()
    if begun is not None:
        begun.record()
    for _ in range(calls):
        run()
    if ended is not None:
        ended.record()
    wait_for(device)
    wall = (time.perf_counter() - started) / calls
    if begun is None or ended is None:
        return wall, None
    return wall, begun.elapsed_time(ended) / 1e3 / calls


def _event(device: torch.device) -> Any:
    return torch.cuda.Event(enable_timing=True) if device.type == "cuda" else None


def _median(rounds: list[tuple[float, float | None]]) -> Seconds:
    by_device = [device for _, device in rounds if device is not None]
    wall = statistics.median(wall for wall, _ in rounds)
    return Seconds(wall, statistics.median(by_device) if by_device else None)


def copied_bytes_a_second(device: torch.device, size_bytes: int, rounds: int) -> float:
    """Return the bytes that a copy within the device reads and writes a second."""
    source = torch.ones(size_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    taken = in_turns({"copy": lambda: target.copy_(source)}, device, rounds, 5)["copy"]
    return 2 * size_bytes / (taken.device or taken.wall)
