"""Times what is done with the linears of a base, as a step does it.

On a CPU each linear is timed alone, one after the other, so that weights are read from memory and
not from a processor's cache. On a GPU launching takes longer than running, and steps are recorded:
so is what is timed, all linears that see the same kind of rows in one recording, since these share
work; the device's own clock is read, and each role has its part by the size of its weights.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from adapters_core.contract.method import Shape
from adapters_core.layers.linear import AdaptedLinear

#: A linear's name without its layer, and its shape: linears of one role cost the same.
Role = tuple[str, Shape]
#: What is done with a linear and its rows `[T, in]`; one for each time, since it may remember.
Run = Callable[[AdaptedLinear, Tensor], object]
Make = Callable[[], Run]
#: Returns what replays a function on a GPU; None: it is not recorded.
Record = Callable[[Callable[[], Tensor]], Callable[[], Tensor] | None]
#: Runs what was prepared, and returns the seconds of one linear of each role.
Sweep = Callable[[], dict[Role, float]]

#: Weights that are run through: more than a processor's caches hold, and a GPU's of each role.
_SAMPLE_BYTES, _GPU_SAMPLE_BYTES = 64 << 20, 4 << 30


def role(path: str, shape: Shape) -> Role:
    """Return a linear's role."""
    return path.rpartition(".")[2], shape


def sample(linears: Mapping[str, AdaptedLinear]) -> list[AdaptedLinear]:
    """Return the first linears, until every role is among them and their bytes are enough."""
    missing = {role(path, linear.shape) for path, linear in linears.items()}
    chosen, size = [], 0
    for path, linear in linears.items():
        weight = linear.golden()
        enough = _SAMPLE_BYTES if weight.device.type == "cpu" else _GPU_SAMPLE_BYTES
        if not missing and size >= enough:
            break
        chosen.append(linear)
        missing.discard(role(path, linear.shape))
        size += weight.nbytes
    return chosen


def fills_caches(linears: Sequence[AdaptedLinear]) -> float:
    """Return which part of a processor's caches the weights take, at most 1."""
    return min(1.0, sum(linear.golden().nbytes for linear in linears) / _SAMPLE_BYTES)


class LinearTimes:
    """Times what is done with linears.

    Args:
        linears: on one device.
        record: records on it; None where steps are not recorded.
    """

    def __init__(self, linears: Sequence[AdaptedLinear], record: Record | None) -> None:
        self._linears, self._record = linears, record
        weight = linears[0].golden()
        self.device, self._dtype = weight.device, weight.dtype
        self._inputs: dict[tuple[str, int, int], Tensor] = {}

    @property
    def is_recorded(self) -> bool:
        """Return whether steps are recorded here."""
        return self._record is not None

    def launched(self, make: Make, rows: int) -> Sweep:
        """Return what times linears as a step does that is not recorded: the median of each role.

        Args:
            make: makes what is done with all linears, one after the other.
            rows: that each linear sees.
        """
        return lambda: self._launched(make(), rows)

    def stepped(self, make: Make, rows: int) -> Sweep:
        """Return what times linears as a step of single tokens does; arguments as above."""
        if self._record is None:
            return self.launched(make, rows)
        replays: list[tuple[list[AdaptedLinear], Callable[[], Tensor]]] = []
        for linears in self._sharing():
            replay = self._record(partial(self._all, make, linears, rows))
            if replay is None:
                return self.launched(make, rows)
            replays.append((linears, replay))
        return lambda: self._replayed(replays)

    def seconds(self, run: Callable[[], object]) -> float:
        """Return the seconds of a function: the device's own, without waiting for the host."""
        if self.device.type != "cuda":
            begun = time.perf_counter()
            run()
            return time.perf_counter() - begun
        stream = torch.cuda.current_stream(self.device)
        first: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        last: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        first.record(stream)
        run()
        last.record(stream)
        last.synchronize()
        return float(first.elapsed_time(last)) / 1000

    def _launched(self, run: Run, rows: int) -> dict[Role, float]:
        found: defaultdict[Role, list[float]] = defaultdict(list)
        for linear in self._linears:
            x = self._input(linear, rows)
            self._wait()
            begun = time.perf_counter()
            run(linear, x)
            self._wait()
            found[role(linear.path, linear.shape)].append(time.perf_counter() - begun)
        return {name: statistics.median(seconds) for name, seconds in found.items()}

    def _sharing(self) -> list[list[AdaptedLinear]]:
        """Return the linears in groups: of all layers those that see the same rows in theirs."""
        by_input: defaultdict[tuple[str, int], list[AdaptedLinear]] = defaultdict(list)
        for linear in self._linears:
            by_input[linear.path.rpartition(".")[0], linear.shape.in_].append(linear)
        found: defaultdict[tuple[Role, ...], list[AdaptedLinear]] = defaultdict(list)
        for linears in by_input.values():
            found[tuple(role(one.path, one.shape) for one in linears)] += linears
        return list(found.values())

    def _all(self, make: Make, linears: Sequence[AdaptedLinear], rows: int) -> Tensor:
        run = make()
        for linear in linears:
            run(linear, self._input(linear, rows))
        return self._input(linears[0], rows)

    def _replayed(
        self, replays: Sequence[tuple[list[AdaptedLinear], Callable[[], Tensor]]]
    ) -> dict[Role, float]:
        found: defaultdict[Role, list[float]] = defaultdict(list)
        for linears, replay in replays:
            a_byte = self.seconds(replay) / sum(linear.golden().nbytes for linear in linears)
            for linear in linears:
                found[role(linear.path, linear.shape)].append(a_byte * linear.golden().nbytes)
        return {name: statistics.median(seconds) for name, seconds in found.items()}

    def _input(self, linear: AdaptedLinear, rows: int) -> Tensor:
        """Return the same rows for linears under one parent, as they see the same in a step."""
        key = (linear.path.rpartition(".")[0], rows, linear.shape.in_)
        if key not in self._inputs:
            x = torch.randn(rows, linear.shape.in_, device=self.device, dtype=self._dtype)
            self._inputs[key] = x
        return self._inputs[key]

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
