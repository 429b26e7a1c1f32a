"""Measures at start what rows cost on this device with this base, for the planner.

Every linear of the first layers is run as a step runs it (linear_times.py): recorded where steps
are. The time is bounded, and shorter for small bases: a method that was not measured is taken to
cost as much as the costliest that was.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from adapters_core.contract.method import Method, Rows, Segment
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import Injection
from adapters_core.layers.linear import AdaptedLinear
from adapters_core.layers.serving_plan import FactoredGroup, MergedGroup, ServingPlan
from server.planning.costs import Costs, Curve, total
from server.planning.linear_times import (
    LinearTimes,
    Record,
    Role,
    Run,
    Sweep,
    fills_caches,
    role,
    sample,
)

#: Rows at which a linear is measured; a factored update grows evenly, so fewer do there.
_OWN_ROWS = (4, 16, 64, 128)
_TOKEN_ROWS = (4, 16, 64)
_PROMPT_ROWS = (16, 64)
_ROUNDS = 3
#: A merge reads and writes its weights, and is held to three times the time of adding them.
_MERGE_ADDS = 3.0


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
        roles = [role(target, part.shape) for target, part in layout.parts.items()]
        if not self.token or not roles or not all(one in self.own for one in roles):
            return None
        methods = [part.method.name for part in layout.parts.values()]
        lengths = [part.length for part in layout.parts.values()]
        size = item_bytes * sum(p.shape.out * p.shape.in_ for p in layout.parts.values())
        parts = list(zip(methods, roles, lengths, strict=True))
        return Costs(
            own=total(self.own[one] for one in roles),
            split=total(self.split[one] for one in roles),
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
    injection: Injection,
    basis_cache: BasisCache,
    methods: Iterable[Method],
    most_s: float = 1.5,
    record: Record | None = None,
) -> Calibration:
    """Return what rows cost here.

    Args:
        injection: the base; nothing in it is changed.
        basis_cache: bases that adapters share.
        methods: to measure, the most usual first, with usual hyper-parameters.
        most_s: no further method is begun after so many seconds, or after fewer on a base with
            weights that fit a processor's caches; one method is always measured.
        record: records on the base's device; None where steps are not recorded. What it has
            recorded is not used afterwards.
    """
    started = time.perf_counter()
    bench = _Bench(injection, basis_cache, started, most_s, record)
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
        token[method.name] = bench.curves(partial(bench.tokens, bank), _TOKEN_ROWS)
        prompt[method.name] = bench.curves(partial(bench.prompt, bank), _PROMPT_ROWS)
        for target, part in bank.layout.parts.items():
            lengths[method.name, role(target, part.shape)] = part.length
    seconds = time.perf_counter() - started
    return Calibration(own, split, token, prompt, lengths, bench.copy_s(), seconds)


class _Bench:
    """What is timed with the linears of a base's first layers."""

    def __init__(
        self,
        injection: Injection,
        basis_cache: BasisCache,
        started: float,
        most_s: float,
        record: Record | None,
    ) -> None:
        self._linears = sample(injection.linears)
        self._times = LinearTimes(self._linears, record)
        self._deadline = started + most_s * fills_caches(self._linears)
        self._basis_cache = basis_cache

    @property
    def is_late(self) -> bool:
        """Return whether the time is over."""
        return time.perf_counter() > self._deadline

    def curves(self, sweep_of: Callable[[int], Sweep], rows: Sequence[int]) -> dict[Role, Curve]:
        """Return a curve per role: the best of the rounds, since others use the processor, too."""
        points: defaultdict[Role, list[tuple[int, float]]] = defaultdict(list)
        for count in rows:
            sweep = sweep_of(count)
            if not self.is_late:
                sweep()  # warms up
            rounds = [sweep()]
            while len(rounds) < _ROUNDS and not self.is_late:
                rounds.append(sweep())
            for name in rounds[0]:
                points[name].append((count, min(one[name] for one in rounds)))
        return {name: Curve(tuple(found)) for name, found in points.items()}

    def own(self, rows: int) -> Sweep:
        """Return what times the base's linears."""
        return self._times.stepped(lambda: lambda linear, x: linear.base_rows(x), rows)

    def split(self, rows: int) -> Sweep:
        """Return what times two halves of the rows, by the base's weights and by merged ones.

        A step picks them out and puts them back; one that is recorded marks them.
        """
        device = self._times.device
        half = torch.arange(rows, device=device).view(2, -1)
        golden = {linear.path: linear.golden() for linear in self._linears}
        plan = ServingPlan(base=half[0], merged=[MergedGroup(golden, half[1])])
        if self._times.is_recorded:
            mask = torch.arange(rows, device=device)[:, None] >= rows // 2
            plan = ServingPlan(merged=[MergedGroup(golden, None, mask)])
        return self._times.stepped(lambda: plan.forward, rows)

    def apart(self, rows: int) -> Sweep:
        """Return what times two halves that lie in one piece each, over the same weights."""
        half = rows // 2
        return self._times.stepped(
            lambda: lambda f, x: (f.base_rows(x[:half]), f.base_rows(x[half:])), rows
        )

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

    def tokens(self, bank: Bank, rows: int) -> Sweep:
        """Return what times the updates of single tokens of different adapters."""
        slots = 1 + torch.arange(rows, device=self._times.device) % 2
        return self._times.stepped(partial(_update_of, bank, Rows(slots, rows)), rows)

    def prompt(self, bank: Bank, rows: int) -> Sweep:
        """Return what times the updates of one prompt, which no step has recorded."""
        slots = torch.ones(rows, dtype=torch.long, device=self._times.device)
        of_prompt = Rows(slots, 0, (Segment(0, rows, 1),))
        return self._times.launched(partial(_update_of, bank, of_prompt), rows)

    def copy_s(self) -> float:
        """Return the seconds of adding to one byte of weights."""
        weight = self._linears[0].golden()
        out = torch.empty_like(weight)
        rounds = [
            self._times.seconds(lambda: torch.add(weight, weight, out=out))
            for _ in range(1 + _ROUNDS)
        ]
        return min(rounds[1:]) / weight.nbytes


def _update_of(bank: Bank, rows: Rows) -> Run:
    """Return what adds the updates of a bank's rows, by kernels or by torch."""
    group = FactoredGroup(bank, rows, None)

    def run(linear: AdaptedLinear, x: Tensor) -> None:
        if bank.kernels_of(linear.path) is None:
            group.update(linear.path, x)
            return
        group.begin(linear, x)
        group.add_to(x.new_zeros(len(x), linear.shape.out), linear, x)

    return run


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
