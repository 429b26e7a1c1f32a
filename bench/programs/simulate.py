"""Where requests are placed among many replicas: a simulation with costs measured here.

What: 10,000 adapters, 100 replicas, Poisson arrivals, adapters drawn evenly and by Zipf's law; p50
and p95 of the first token, tokens/s, cold loads per request, and the busiest replica's tokens over
the mean, for: any replica, power of two choices by queue, hashing on the adapter, hashing with
spill-over, and every adapter on every replica. Each for adapters of kilobytes (FourierFT, n = 1000,
factored), of megabytes (LoRA, r = 16), and for merged copies, on q and v, with as much memory each.
Why: where every replica holds every adapter, requests can go wherever there is room.
Steps, loads and sizes are those of a replica on this processor, measured at start or read from
`--costs`: an earlier run's output. Files lie on the replica, and loads slow no step down: both
favour what loads much. The same costs and the same seed give the same figures.

    overtone bench simulate [--adapters 10000] [--replicas 100] [--load 0.7] [--costs FILE]
"""

import json
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from bench.lib.load import FORMS, Lengths, Load, Planned
from bench.lib.program import Parser, positive
from bench.lib.timing import machine
from bench.simulation.costs import Costs, Limits
from bench.simulation.figures import figures
from bench.simulation.fleet import Fleet
from bench.simulation.placement import Policy, homes_of, policies
from bench.simulation.replica import Replica
from overtone_client import InvalidArgument

_MIB = 1 << 20
#: Lengths are drawn so often for their mean.
_DRAWS = 10_000
_HEADS = ("adapters", "policy", "first token p50, s", "p95, s") + (
    "tokens/s",
    "cold loads a request",
    "busiest / mean",
)


def measured(options: Namespace) -> dict[str, Costs]:
    """Return the costs of each kind of adapter on this processor."""
    from bench.programs.simulate_costs import ReplicaCosts  # imports torch

    return ReplicaCosts(options.width, options.layers, options.rounds).measure()


def read_costs(path: Path) -> dict[str, Costs]:
    """Return the costs of an earlier run, from the last line of its output.

    Raises:
        InvalidArgument: the file cannot be read, or has none.
    """
    try:
        kinds = dict(json.loads(path.read_text().strip().rpartition("\n")[2])["costs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        wanted = "its last line must be one that `overtone bench simulate` printed last"
        raise InvalidArgument(f"--costs {path}: {error!r}; {wanted}") from error
    if not kinds:
        raise InvalidArgument(f"--costs {path} has the costs of no kind of adapter")
    return {kind: Costs.parse(given) for kind, given in kinds.items()}


class Scene:
    """One fleet's traffic, the same for all kinds of adapters and all policies.

    Args:
        options: the program's.
        costs: of the adapters whose capacity `--load` is a share of.
    """

    def __init__(self, options: Namespace, costs: Costs) -> None:
        self._options = options
        self._limits = Limits(options.memory_mib * _MIB)
        lengths = (_mean(options.prompt), _mean(options.output))
        self.rate = options.load * options.replicas * self._limits.capacity(costs, *lengths)
        self._homes = homes_of(options.adapters, options.replicas)

    def rows(self, kinds: Mapping[str, Costs]) -> Iterator[dict[str, Any]]:
        """Yield one row per law of traffic, kind of adapter and policy."""
        for skew in sorted({0.0, self._options.skew}):
            plan = self._plan(skew, self._options.seed, self._options.requests)
            warm = self._plan(skew, self._options.seed + 1, self._options.warm)
            earlier = [one.adapter for one in warm]
            for kind, costs in kinds.items():
                for name, policy in policies(self._homes, self._options.seed).items():
                    found = self._run(costs, policy, plan, earlier)
                    yield {"skew": skew, "adapters": kind, "policy": name, **found}

    def _plan(self, skew: float, seed: int, count: int) -> list[Planned]:
        options = self._options
        load = Load(options.adapters, skew, options.prompt, options.output, self.rate)
        return list(islice(load.requests(seed), count))

    def _run(
        self, costs: Costs, policy: Policy, plan: Sequence[Planned], earlier: Sequence[int]
    ) -> dict[str, Any]:
        """Return a run's figures; the reason if not all adapters fit where they should."""
        size, memory = costs.adapter_bytes, self._limits.memory
        if size > memory:
            return {"reason": f"one has {size / _MIB:.0f} MiB"}
        if policy.holds_all and size * self._options.adapters > memory:
            return {"reason": f"all have {size * self._options.adapters / _MIB:,.0f} MiB"}
        replicas = [Replica(costs, self._limits) for _ in range(self._options.replicas)]
        fleet = Fleet(replicas, policy.place)
        if policy.holds_all:
            fleet.fill(range(self._options.adapters))
        else:
            fleet.warm(earlier)
        return figures(fleet.serve(plan), replicas)


def _mean(lengths: Lengths) -> float:
    random = Random(0)
    return sum(lengths.draw(random) for _ in range(_DRAWS)) / _DRAWS


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table per law of traffic."""
    parts = []
    for skew in sorted({row["skew"] for row in rows}):
        parts += [f"Traffic: {law(skew)}.", ""]
        parts += [_line(_HEADS), _line(["--"] * len(_HEADS))]
        parts += [_line(_cells(row)) for row in rows if row["skew"] == skew]
        parts.append("")
    return "\n".join(parts)


def law(skew: float) -> str:
    """Return the name of Zipf's law with this skew."""
    return f"Zipf, skew {skew:g}" if skew else "uniform"


def _cells(row: Mapping[str, Any]) -> list[str]:
    names = [row["adapters"], row["policy"]]
    if "reason" in row:
        return [*names, f"does not fit: {row['reason']}", *[""] * (len(_HEADS) - 3)]
    return [
        *names,
        f"{row['first_token_p50_s']:.2f}",
        f"{row['first_token_p95_s']:.2f}",
        f"{row['tokens_s']:,.0f}",
        f"{row['cold_loads_per_request']:.3f}",
        f"{row['imbalance']:.2f}",
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def counted(text: str) -> int:
    """Return a whole number above 0; argparse names the option if it is none."""
    value = int(text)
    if value < 1:
        raise ArgumentTypeError(f"{text} is not above 0")
    return value


def _options(arguments: Sequence[str] | None) -> Namespace:
    parser = Parser(prog="overtone bench simulate", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--adapters", type=counted, default=10_000)
    add("--replicas", type=counted, default=100)
    add("--requests", type=counted, default=10_000)
    add("--warm", type=counted, default=100_000, help="requests that filled memories before")
    add("--load", type=positive, default=0.7, help="of the replicas' capacity")
    add("--skew", type=positive, default=1.0, help="of Zipf's law")
    add("--prompt", default="lognormal:64:0.6", help=FORMS)
    add("--output", default="lognormal:48:0.6", help=FORMS)
    add("--memory-mib", type=counted, default=1024, help="of a replica, for adapters")
    add("--costs", type=Path, help="output of an earlier run; measured if not given")
    add("--seed", type=int, default=0)
    add("--width", type=counted, default=1024, help="of the base that is measured")
    add("--layers", type=counted, default=4)
    add("--rounds", type=counted, default=3)
    options = parser.parse_args(arguments)
    options.prompt, options.output = map(Lengths.parse, (options.prompt, options.output))
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure or read the costs, simulate, and print."""
    options = _options(arguments)
    kinds = read_costs(options.costs) if options.costs else measured(options)
    source = f"read from {options.costs.name}" if options.costs else "measured at start"
    place = machine()
    print(f"Costs of a replica, {source}, {place['processor']}, {place['cores']} cores:")
    for kind, costs in kinds.items():
        print(f"  {kind}: {json.dumps(costs.shown())}")
    scene = Scene(options, next(iter(kinds.values())))
    print(f"{scene.rate:.1f} requests/s, seed {options.seed}\n")
    rows = list(scene.rows(kinds))
    print(markdown(rows))
    shown = {kind: costs.shown() for kind, costs in kinds.items()}
    found = {"bench": "simulate", "machine": place, "costs": shown, "rate": scene.rate}
    print(json.dumps({**found, "options": _plain(options), "rows": rows}), flush=True)


def _plain(options: Namespace) -> dict[str, Any]:
    """Return the options as JSON has them."""
    plain = (int, float)
    return {k: v if isinstance(v, plain) else str(v) for k, v in vars(options).items() if v}
