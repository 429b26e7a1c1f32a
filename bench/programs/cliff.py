"""No cliff: tokens/s and first tokens as the traffic draws on more adapters, up to all that exist.

What: one server with all adapters registered; 32 clients, each with one request at a time; rounds
of requests over 1, 10, 100, 1,000 and 10,000 adapters, drawn evenly and by Zipf's law, in turns.
A row is tokens/s against that of one adapter in the same round, and the 95th percentile of the time
to the first token over all rounds.
Why: a server that keeps a number of adapters falls off once the traffic draws on more: S-LoRA's and
vLLM's users meet it at their slots. Here an adapter that was never asked for costs one load.
The mode is factored, or as given; the load generator shares the machine with the server.

    overtone bench cliff [--adapters 1 10 100 1000 10000] [--rounds 3] [--requests 64]
        [--prompt 64] [--new 64] [--mode factored] [--picture cliff.png]
"""

import asyncio
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench.lib.load import Lengths, Load
from bench.lib.load_runner import Ending, Model, Record, Target, closed_loop, connected
from bench.lib.picture import check_picture
from bench.lib.program import Parser
from bench.lib.servers import Files, base_on_disk, served
from bench.lib.summary import spread, ttft
from bench.lib.timing import report
from bench.programs.http import checked
from bench.programs.short_answers import registered

_CALLERS = 32
_N = 1000
#: Traffic's name -> skew of Zipf's law.
_SKEWS = {"uniform": 0.0, "zipf": 1.0}


@dataclass(frozen=True)
class Case:
    """So many adapters, drawn in one way."""

    adapters: int
    traffic: str


@dataclass(frozen=True)
class Asked:
    """How much is asked in one round of one case."""

    requests: int
    prompt: int
    new: int

    def load(self, case: Case) -> Load:
        """Return the traffic of a case."""
        prompt, new = Lengths("fixed", (self.prompt,)), Lengths("fixed", (self.new,))
        return Load(case.adapters, _SKEWS[case.traffic], prompt, new)


@dataclass
class Found:
    """What was seen of one case, a number a round and a number a request."""

    tokens_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)

    def add(self, record: Record, tokens: int) -> None:
        """Add a round."""
        self.tokens_s.append(tokens / record.window_s)
        self.first_s += [ttft(seen) for seen in record.seen]


async def _round(url: str, models: Sequence[Model], load: Load, seed: int, asked: Asked) -> Record:
    async with connected(url, None) as wires:
        target, ending = Target(wires, models, seed), Ending(requests=asked.requests)
        return checked(await closed_loop(target, load.requests(seed), _CALLERS, ending))


def in_turns(
    url: str, models: Sequence[Model], cases: Sequence[Case], rounds: int, asked: Asked
) -> dict[Case, Found]:
    """Return what was seen of each case; one round before is not counted."""
    found = {case: Found() for case in cases}
    for number in range(rounds + 1):
        for index, case in enumerate(cases):
            load, seed = asked.load(case), number * len(cases) + index
            record = asyncio.run(_round(url, models[: case.adapters], load, seed, asked))
            if number:
                found[case].add(record, asked.requests * asked.new)
                shown = f"{case.adapters} {case.traffic}: {found[case].tokens_s[-1]:.1f} tokens/s"
                print(f"round {number} of {rounds}, {shown}", flush=True)
    return found


def rows_of(found: Mapping[Case, Found], fewest: int) -> list[dict[str, Any]]:
    """Return a row for each case, against the fewest adapters in the same traffic and round."""
    rows = []
    for case, one in found.items():
        against = found[Case(fewest, case.traffic)].tokens_s
        ratios = [ours / other for ours, other in zip(one.tokens_s, against, strict=True)]
        first = spread(one.first_s)
        assert first is not None
        rows.append(
            {
                "what": f"{case.adapters} adapters, {case.traffic}, of the tokens/s with {fewest}",
                "adapters": case.adapters,
                "traffic": case.traffic,
                "tokens_s": statistics.median(one.tokens_s),
                "ratio": statistics.median(ratios),
                "ratios": [round(ratio, 4) for ratio in ratios],
                "first_p50_s": first["p50"],
                "first_p95_s": first["p95"],
            }
        )
    return rows


def draw(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write both figures over the number of adapters; the picture's kind follows the suffix."""
    figure = Figure(figsize=(10.0, 4.0), layout="constrained")
    speed, first = figure.subplots(1, 2)
    for axes, key, what in (
        (speed, "tokens_s", "tokens/s"),
        (first, "first_p95_s", "time to first token, p95, s"),
    ):
        for traffic in _SKEWS:
            mine = [row for row in rows if row["traffic"] == traffic]
            numbers = [row["adapters"] for row in mine]
            axes.plot(numbers, [row[key] for row in mine], marker="o", label=traffic)
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("adapters in the traffic")
        axes.set_title(what, fontsize=9)
        axes.grid(alpha=0.3)
    speed.legend()
    figure.savefig(file, dpi=110)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench cliff", description=__doc__.splitlines()[0])
    parser.add_argument("--adapters", type=int, nargs="+", default=[1, 10, 100, 1000, 10000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=64, help="of one round of one case")
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--mode", choices=["factored", "merged", "auto"], default="factored")
    parser.add_argument("--picture", type=Path, help="a .png, .pdf or .svg of the table")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    options = parser.parse_args(arguments)
    if options.picture is not None:
        check_picture(options.picture)
    cases = [Case(count, traffic) for count in options.adapters for traffic in _SKEWS]
    asked = Asked(options.requests, options.prompt, options.new)
    with (
        base_on_disk(options.width, options.layers) as (base, spec, scratch),
        served(base, scratch / "data", mode=options.mode) as server,
    ):
        models = registered(server, Files(spec, _N, scratch / "file"), max(options.adapters))
        found = in_turns(server.url, models, cases, options.rounds, asked)
    rows = rows_of(found, min(options.adapters))
    if options.picture is not None:
        draw(rows, options.picture)
    report("cliff", rows)
