"""Measures at start what rows cost on this device with this base, for the planner.

Every linear of the first layers is run as a step runs it, one after the other, so that weights are
read from memory and not from a processor's cache. The time is bounded, and shorter for small bases:
a method that was not measured is taken to cost as much as the costliest that was.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters_core.contract.method import Method, Rows, Segment, Shape
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import Injection
from adapters_core.layers.linear import AdaptedLinear
from adapters_core.layers.serving_plan import FactoredGroup, MergedGroup, ServingPlan
from server.planning.costs import Costs, Curve, total

#: Rows at which a linear is measured; a factored update grows evenly, so fewer do there.
_OWN_ROWS = (4, 16, 64, 128)
_TOKEN_ROWS = (4, 16, 64)
_PROMPT_ROWS = (16, 64)
_ROUNDS = 3
#: Weights that are run through: more than a processor's caches hold.
_SAMPLE_BYTES = 64 << 20
#: A merge reads and writes its weights, and is held to three times the time of adding them.
_MERGE_ADDS = 3.0

#: A linear's name without its layer, and its shape: linears of one role cost the same.
Role = tuple[str, Shape]
Sweep = Callable[[int], dict[Role, float]]


@dataclass(frozen=True)
class Calibration:
    """Seconds per linear of each role.

    Args:
        own, split: by role; see `Costs`.
        token, prompt: by method and role.
        lengths: packed numbers of the measured methods, by method and role.
        copy_s: seconds to add to a byte of weights.
        seconds: what measuring took.
    """

    own: Mapping[Role, Curve]
    split: Mapping[Role, Curve]
    token: Mapping[str, Mapping[Role, Curve]]
    prompt: Mapping[str, Mapping[Role, Curve]]
    lengths: Mapping[tuple[str, Role], int]
    copy_s: float
    seconds: float

    def costs_of(self, layout: Layout, item_bytes: int = 4) -> Costs | None:
        """Return what adapters of a layout cost; None if it adapts what was not measured."""
        roles = [_role(target, part.shape) for target, part in layout.parts.items()]
        if not self.token or not roles or not all(role in self.own for role in roles):
            return None
        methods = [part.method.name for part in layout.parts.values()]
        lengths = [part.length for part in layout.parts.values()]
        size = item_bytes * sum(p.shape.out * p.shape.in_ for p in layout.parts.values())
        parts = list(zip(methods, roles, lengths, strict=True))
        return Costs(
            own=total(self.own[role] for role in roles),
            split=total(self.split[role] for role in roles),
            token=total(self._update(self.token, *part) for part in parts),
            prompt=total(self._update(self.prompt, *part) for part in parts),
            merged_bytes=size,
            merge_s=_MERGE_ADDS * self.copy_s * size,
        )

    def _update(
        self, measured: Mapping[str, Mapping[Role, Curve]], method: str, role: Role, length: int
    ) -> Curve:
        """Return a method's curve; one with more coefficients than the measured costs more."""
        if method not in measured:
            method = max(measured, key=lambda name: measured[name][role].at(16))
        return measured[method][role].times(max(1.0, length / self.lengths[method, role]))

    def shown(self) -> dict[str, object]:
        """Return the sums over one linear of each role in milliseconds, for display."""
        names = {"linears": self.own, "split": self.split}
        updates = {f"{name} tokens": curves for name, curves in self.token.items()}
        updates |= {f"{name} prompt": curves for name, curves in self.prompt.items()}
        curves = {
            name: {str(rows): round(1e3 * s, 4) for rows, s in total(by_role.values()).points}
            for name, by_role in (names | updates).items()
        }
        return {"seconds": round(self.seconds, 3), "milliseconds_by_rows": curves}


@torch.inference_mode()
def calibrate(
    injection: Injection, basis_cache: BasisCache, methods: Iterable[Method], most_s: float = 1.5
) -> Calibration:
    """Return what rows cost here.

    Args:
        injection: the base; nothing in it is changed.
        basis_cache: bases that adapters share.
        methods: to measure, the most usual first, with usual hyper-parameters.
        most_s: no further method is begun after so many seconds, or after fewer on a base with
            weights that fit a processor's caches; one method is always measured.
    """
    started = time.perf_counter()
    bench = _Bench(injection, basis_cache, started, most_s)
    own = bench.curves(bench.own, _OWN_ROWS)
    split = _difference(
        bench.curves(bench.split, _OWN_ROWS[1:]), bench.curves(bench.apart, _OWN_ROWS[1:])
    )
    token: dict[str, Mapping[Role, Curve]] = {}
    prompt: dict[str, Mapping[Role, Curve]] = {}
    lengths: dict[tuple[str, Role], int] = {}
    for method in methods:
        if token and bench.is_late:
            break
        bank = bench.bank(method)
        token[method.name] = bench.curves(bench.tokens(bank), _TOKEN_ROWS)
        prompt[method.name] = bench.curves(bench.prompt(bank), _PROMPT_ROWS)
        for target, part in bank.layout.parts.items():
            lengths[method.name, _role(target, part.shape)] = part.length
    seconds = time.perf_counter() - started
    return Calibration(own, split, token, prompt, lengths, bench.copy_s(), seconds)


class _Bench:
    """Runs the linears of a base's first layers, each timed alone."""

    def __init__(
        self, injection: Injection, basis_cache: BasisCache, started: float, most_s: float
    ) -> None:
        self._linears = _sample(injection.linears)
        size = sum(linear.golden().nbytes for linear in self._linears)
        self._deadline = started + most_s * min(1.0, size / _SAMPLE_BYTES)
        self._basis_cache = basis_cache
        weight = self._linears[0].golden()
        self._device, self._dtype = weight.device, weight.dtype
        self._inputs: dict[tuple[str, int, int], Tensor] = {}

    @property
    def is_late(self) -> bool:
        """Return whether the time is over."""
        return time.perf_counter() > self._deadline

    def curves(self, sweep: Sweep, rows: Sequence[int]) -> dict[Role, Curve]:
        """Return a curve per role: the best of the rounds, since others use the processor, too."""
        points: defaultdict[Role, list[tuple[int, float]]] = defaultdict(list)
        for count in rows:
            if not self.is_late:
                sweep(count)  # warms up
            rounds = [sweep(count)]
            while len(rounds) < _ROUNDS and not self.is_late:
                rounds.append(sweep(count))
            for role in rounds[0]:
                points[role].append((count, min(one[role] for one in rounds)))
        return {role: Curve(tuple(found)) for role, found in points.items()}

    def own(self, rows: int) -> dict[Role, float]:
        """Return the seconds of the base's linears, the median linear of each role."""
        return self._timed(lambda linear, x: linear.base_rows(x), rows)

    def split(self, rows: int) -> dict[Role, float]:
        """Return the seconds of two groups of rows that a step picks out and puts back."""
        half = torch.arange(rows, device=self._device).view(2, -1)
        golden = {linear.path: linear.golden() for linear in self._linears}
        plan = ServingPlan(base=half[0], merged=[MergedGroup(golden, half[1])])
        return self._timed(plan.forward, rows)

    def apart(self, rows: int) -> dict[Role, float]:
        """Return the seconds of two halves that lie in one piece each, over the same weights."""
        half = rows // 2
        return self._timed(lambda f, x: (f.base_rows(x[:half]), f.base_rows(x[half:])), rows)

    def bank(self, method: Method) -> Bank:
        """Return a bank with two fresh adapters of a method on the sampled linears."""
        shapes = {linear.path: linear.shape for linear in self._linears}
        methods = method.of_layers(shapes)
        bank = Bank(Layout.of(methods, shapes), self._basis_cache, slots=2)
        generator = torch.Generator().manual_seed(0)
        layers = {t: m.init(shapes[t], generator) for t, m in methods.items()}
        for _ in range(2):
            bank.add(bank.pack(methods, layers))
        return bank

    def tokens(self, bank: Bank) -> Sweep:
        """Return what times the updates of single tokens of different adapters."""
        return lambda rows: self._updates(bank, rows, rows)

    def prompt(self, bank: Bank) -> Sweep:
        """Return what times the updates of one prompt."""
        return lambda rows: self._updates(bank, rows, 0)

    def copy_s(self) -> float:
        """Return the seconds of adding to one byte of weights."""
        weight = self._linears[0].golden()
        out = torch.empty_like(weight)
        seconds = []
        for _ in range(1 + _ROUNDS):
            begun = time.perf_counter()
            torch.add(weight, weight, out=out)
            self._wait()
            seconds.append(time.perf_counter() - begun)
        return min(seconds[1:]) / weight.nbytes

    def _updates(self, bank: Bank, rows: int, num_decode: int) -> dict[Role, float]:
        slots = 1 + torch.arange(rows, device=self._device) % 2
        segments: tuple[Segment, ...] = ()
        if not num_decode:
            slots, segments = torch.ones_like(slots), (Segment(0, rows, 1),)
        group = FactoredGroup(bank, Rows(slots, num_decode, segments), None)

        def run(linear: AdaptedLinear, x: Tensor) -> None:
            if bank.kernels_of(linear.path) is None:
                group.update(linear.path, x)
                return
            group.begin(linear, x)
            group.add_to(x.new_zeros(rows, linear.shape.out), linear, x)

        return self._timed(run, rows)

    def _timed(
        self, run: Callable[[AdaptedLinear, Tensor], object], rows: int
    ) -> dict[Role, float]:
        found: defaultdict[Role, list[float]] = defaultdict(list)
        for linear in self._linears:
            x = self._input(linear, rows)
            self._wait()
            begun = time.perf_counter()
            run(linear, x)
            self._wait()
            found[_role(linear.path, linear.shape)].append(time.perf_counter() - begun)
        return {role: statistics.median(seconds) for role, seconds in found.items()}

    def _input(self, linear: AdaptedLinear, rows: int) -> Tensor:
        """Return the same rows for linears under one parent, as they see the same in a step."""
        key = (linear.path.rpartition(".")[0], rows, linear.shape.in_)
        if key not in self._inputs:
            x = torch.randn(rows, linear.shape.in_, device=self._device, dtype=self._dtype)
            self._inputs[key] = x
        return self._inputs[key]

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _sample(linears: Mapping[str, AdaptedLinear]) -> list[AdaptedLinear]:
    """Return the first linears, until every role is among them and their bytes are enough."""
    missing = {_role(path, linear.shape) for path, linear in linears.items()}
    chosen, size = [], 0
    for path, linear in linears.items():
        if not missing and size >= _SAMPLE_BYTES:
            break
        chosen.append(linear)
        missing.discard(_role(path, linear.shape))
        size += linear.golden().nbytes
    return chosen


def _role(path: str, shape: Shape) -> Role:
    return path.rpartition(".")[2], shape


def _difference(longer: Mapping[Role, Curve], shorter: Mapping[Role, Curve]) -> dict[Role, Curve]:
    """Return what is between two curves of each role; noise does not make it negative."""
    return {
        role: Curve(
            tuple(
                (rows, max(0.0, seconds - less))
                for (rows, seconds), (_, less) in zip(
                    curve.points, shorter[role].points, strict=True
                )
            )
        )
        for role, curve in longer.items()
    }
