"""Short answers over REST: tokens/s with one, 32 and 1,000 adapters, against the base alone.

What: 32 clients, each with one request at a time, of 32 prompt tokens and 16 generated ones; rounds
of requests that ask the base alone, one adapter, 32 or 1,000 uniformly, in turns on one server.
Why: with short answers half of the rows are prompts', and each request is a name to look up and an
adapter that may have to be loaded; a decode step shows none of that.
The server has its default mode. The load generator shares the machine with it. Ratios are medians
of the rounds' own.

    overtone bench short [--adapters 1 32 1000] [--rounds 5] [--requests 160] [--mode auto]
"""

import asyncio
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench.lib.load_runner import Ending, Model, Target, closed_loop, connected
from bench.lib.names import name_of
from bench.lib.program import Parser
from bench.lib.servers import Files, Served, base_on_disk, register, served
from bench.lib.timing import report
from bench.programs.http import checked, even
from overtone_client import Client

_CALLERS, _PROMPT, _NEW = 32, 32, 16
_N = 1000
#: The number of adapters that stands for the base alone.
_BASE = 0


def registered(server: Served, files: Files, count: int) -> list[Model]:
    """Register so many adapters, and return them."""
    with server.registry() as registry:
        register(registry, files, range(count))
        names = [name_of(number) for number in range(count)]
        return [Model(name, registry.adapters.resolve(name).digest) for name in names]


def base_of(server: Served) -> Model:
    """Return the base as requests name it."""
    with Client(server.url) as client:
        return Model(next(m.id for m in client.models(limit=1) if m.parent is None), None)


async def tokens_s(url: str, models: Sequence[Model], seed: int, requests: int) -> float:
    """Return tokens/s of one round that asks the models uniformly."""
    load = even(len(models), _PROMPT, _NEW)
    async with connected(url, None) as wires:
        target, ending = Target(wires, models, seed), Ending(requests=requests)
        record = await closed_loop(target, load.requests(seed), _CALLERS, ending)
    return requests * _NEW / checked(record).window_s


def in_turns(
    server: Served, asked: Mapping[int, Sequence[Model]], rounds: int, requests: int
) -> dict[int, list[float]]:
    """Return tokens/s of each round by number of adapters; one round before is not counted."""
    found: dict[int, list[float]] = {count: [] for count in asked}
    for number in range(rounds + 1):
        for count, models in asked.items():
            speed = asyncio.run(tokens_s(server.url, models, number * 2000 + count, requests))
            found[count].append(speed)
    return {count: speeds[1:] for count, speeds in found.items()}


def rows_of(speeds: Mapping[int, Sequence[float]]) -> list[dict[str, Any]]:
    """Return a row for each number of adapters against the base, and for the most against one."""
    counts = [count for count in speeds if count != _BASE]
    rows = [
        {
            "what": f"short answers, {count} adapters, of the base's tokens/s",
            "adapters": count,
            **_against(speeds[count], speeds[_BASE]),
        }
        for count in counts
    ]
    least, most = min(counts), max(counts)
    what = f"short answers, {most} adapters, of the tokens/s with {least}"
    return [*rows, {"what": what, "adapters": most, **_against(speeds[most], speeds[least])}]


def _against(speeds: Sequence[float], others: Sequence[float]) -> dict[str, Any]:
    ratios = [ours / other for ours, other in zip(speeds, others, strict=True)]
    return {
        "tokens_s": statistics.median(speeds),
        "against": statistics.median(others),
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 4) for ratio in ratios],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench short", description=__doc__.splitlines()[0])
    parser.add_argument("--adapters", type=int, nargs="+", default=[1, 32, 1000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=160, help="of one round")
    parser.add_argument("--mode", choices=["factored", "merged", "auto"], default="auto")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    options = parser.parse_args(arguments)
    with (
        base_on_disk(options.width, options.layers) as (base, spec, scratch),
        served(base, scratch / "data", mode=options.mode) as server,
    ):
        models = registered(server, Files(spec, _N, scratch / "file"), max(options.adapters))
        asked = {_BASE: [base_of(server)]} | {n: models[:n] for n in options.adapters}
        speeds = in_turns(server, asked, options.rounds, options.requests)
    report("short", rows_of(speeds))
