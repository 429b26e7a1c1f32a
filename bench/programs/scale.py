"""The cost of many registered adapters: two servers in turns, one with few, one with ever more.

What: beside a server with ten registered FourierFT adapters runs one with 10, 100, 1,000, 10,000;
at each size, in turns: seconds to register one more (an upload over REST), to look one up, to the
first token of an adapter in memory, and tokens/s of 32 clients that draw adapters by Zipf's law.
Why: adding adapters must not slow down those that are there. The size 10 shows the noise.
Adapters are published in bulk the way an upload publishes them. Both servers are pinned to one
mode: which rows are merged is another question than how many names there are.

    overtone bench scale [--sizes 10 100 1000 10000] [--rounds 5] [--width 1024] [--layers 8]
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from bench.lib.load import Lengths, Load
from bench.lib.load_runner import Ending, Model, Target, closed_loop, connected
from bench.lib.names import name_of
from bench.lib.program import Parser
from bench.lib.servers import Files, Served, base_on_disk, register, served
from bench.lib.timing import report
from bench.programs.http import Probe, checked
from overtone_client import Client

_FEW = 10
_CALLERS, _PROMPT, _NEW = 32, 32, 24
#: Numbers from here on are registered and deleted again while one more is timed.
_SPARE = 10**8


@dataclass
class Side:
    """One of the two servers, and what is registered there."""

    server: Served
    client: Client
    files: Files
    models: list[Model]
    spare: int = _SPARE

    def grow(self, size: int) -> float:
        """Register up to `size` adapters; return the seconds it took."""
        have = len(self.models)
        with self.server.registry() as registry:
            seconds = register(registry, self.files, range(have, size))
            for number in range(have, size):
                digest = registry.adapters.resolve(name_of(number)).digest
                self.models.append(Model(name_of(number), digest))
        return seconds

    def register_one(self) -> float:
        """Return the seconds of one more upload, which is deleted again."""
        self.spare += 1
        folder, name = self.files.write(self.spare), name_of(self.spare)
        started = time.perf_counter()
        self.client.upload(folder, name)
        seconds = time.perf_counter() - started
        self.client.delete(name)
        return seconds

    def look_up(self) -> float:
        """Return the seconds to read one record."""
        self.spare += 1
        name = self.models[self.spare % len(self.models)].name
        started = time.perf_counter()
        self.client.show(name)
        return time.perf_counter() - started

    def first_token(self, probe: Probe) -> float:
        """Return the seconds to the first token of one adapter that is in memory."""
        return probe.first_token(self.models[0])

    def tokens_s(self, seed: int, requests: int, skew: float) -> float:
        """Return tokens/s of one round of traffic."""
        return asyncio.run(self._tokens_s(seed, requests, skew))

    async def _tokens_s(self, seed: int, requests: int, skew: float) -> float:
        fixed = Lengths("fixed", (_PROMPT,)), Lengths("fixed", (_NEW,))
        load = Load(len(self.models), skew, *fixed)
        async with connected(self.server.url, None) as wires:
            target = Target(wires, self.models, seed)
            ending = Ending(requests=requests)
            record = await closed_loop(target, load.requests(seed), _CALLERS, ending)
        return requests * _NEW / checked(record).window_s


def in_turns(
    few: Callable[[], float], many: Callable[[], float], rounds: int
) -> tuple[float, float, float]:
    """Return both medians, and the median of the rounds' ratios many/few; the first is warm-up."""
    pairs = [(few(), many()) for _ in range(rounds + 1)][1:]
    ratio = statistics.median(m / f for f, m in pairs)
    return statistics.median(f for f, _ in pairs), statistics.median(m for _, m in pairs), ratio


def size_rows(few: Side, many: Side, rounds: int, requests: int, skew: float) -> list[Any]:
    """Return one row for each question at the present size."""
    probes = Probe(few.server.url), Probe(many.server.url)
    seeds = iter(range(1, 10**6))
    quick = 5 * rounds

    def traffic(side: Side) -> Callable[[], float]:
        return lambda: side.tokens_s(len(many.models) + next(seeds), requests, skew)

    found = {
        "register one more, ms": in_turns(few.register_one, many.register_one, quick),
        "look one up, ms": in_turns(few.look_up, many.look_up, quick),
        "first token, ms": in_turns(
            lambda: few.first_token(probes[0]), lambda: many.first_token(probes[1]), quick
        ),
        "tokens/s": in_turns(traffic(few), traffic(many), rounds),
    }
    rows = []
    for what, (of_few, of_many, ratio) in found.items():
        unit = 1e3 if what.endswith("ms") else 1.0
        row = {"what": what, "registered": len(many.models), "few": _FEW}
        rows.append(row | {"with_few": unit * of_few, "with_many": unit * of_many, "ratio": ratio})
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench scale", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000, 10000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=64, help="of one round of traffic")
    parser.add_argument("--zipf", type=float, default=1.0)
    parser.add_argument("--n", type=int, default=1000, help="coefficients of a layer")
    parser.add_argument("--mode", choices=["factored", "auto"], default="factored")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    options = parser.parse_args(arguments)
    rows = []
    with base_on_disk(options.width, options.layers) as (base, spec, scratch), ExitStack() as stack:
        sides = []
        for name in ("few", "many"):
            server = stack.enter_context(served(base, scratch / name, mode=options.mode))
            client = stack.enter_context(Client(server.url))
            sides.append(Side(server, client, Files(spec, options.n, scratch / f"{name}-file"), []))
        few, many = sides
        few.grow(_FEW)
        for size in sorted(options.sizes):
            added = size - len(many.models)
            seconds = many.grow(size)
            if added:
                rows.append({"what": "publish in bulk, ms each", "registered": size})
                rows[-1]["ms"] = 1e3 * seconds / added
            rows += size_rows(few, many, options.rounds, options.requests, options.zipf)
    report("scale", rows)
