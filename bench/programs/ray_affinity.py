"""Affinity on Ray Serve beside power of two choices: hit rate and first token, 1,000 adapters.

What: two applications of deploy/ray on this machine, two replicas each, in turns under the same
requests: one sends an adapter's requests to a replica that had it (`serve.multiplexed`), one to
the shorter of two queues. Hit rate is that of the replicas' coefficient caches; first tokens are
those that a client sees. Each with memory for a part of the adapters in every replica, 1 for all.
Why: an adapter is kilobytes, so that every replica may hold all: what is affinity worth then?
Replicas, Ray and the load generator share this machine: first tokens are theirs together.

    overtone bench ray [--adapters 1000] [--parts 1 0.25] [--only affinity chance]
"""

import asyncio
import statistics
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from bench.lib.load import Lengths, Load
from bench.lib.load_runner import Ending, Model, Record, Target, closed_loop, connected
from bench.lib.loop import Packer
from bench.lib.names import name_of
from bench.lib.program import Parser, positive
from bench.lib.ray_cluster import ray_cluster
from bench.lib.servers import Files, base_on_disk, register
from bench.lib.summary import spread, ttft
from bench.lib.timing import report
from bench.programs.http import checked
from registry import EmbeddedServer, connect

_AFFINITY, _CHANCE = "affinity", "chance"
_REPLICAS = 2
_N = 1000
_PROMPT, _NEW = 32, 4
_CACHE = 'overtone_cache_{}_total{{cache="coefficients"}} '
_CALLERS = 8


@dataclass(frozen=True)
class Side:
    """One application: where it answers, and its replicas' servers."""

    url: str
    servers: Sequence[str]

    def counted(self) -> tuple[float, float]:
        """Return hits and misses of all replicas so far."""
        texts = [_metrics(url) for url in self.servers]
        hits, misses = (sum(_sample(text, kind) for text in texts) for kind in ("hits", "misses"))
        return hits, misses


@contextmanager
def sides(
    names: Sequence[str], base: Path, scratch: Path, registry: str, room: int
) -> Iterator[dict[str, Side]]:
    """Applications until the block ends, by their names.

    Args:
        names: of those that are wanted.
        base: folder of the base.
        scratch: folder with the store.
        registry: its URL.
        room: bytes for coefficients in each replica.
    """
    plans = {f"/{name}": _plan(name, base, scratch, registry, room) for name in names}
    with ray_cluster(plans, scratch / "ray.log") as cluster:
        yield {name: Side(f"{cluster.url}/{name}", cluster.urls(name)) for name in names}


def _plan(name: str, base: Path, scratch: Path, registry: str, room: int) -> dict[str, Any]:
    settings = {
        "base": str(base),
        "base_name": name,
        "registry": registry,
        "store": str(scratch / "store"),
        "data": str(scratch / name),
        "coefficient_bytes": room,
        "host_bytes": 0,  # what is evicted is read again
        "mode": "factored",
        "calibration_s": 0,
        "kv_bytes": 1 << 27,
    }
    actor = {"num_cpus": 0.1}
    served = {"settings": settings, "actor": actor, "replicas": {"least": _REPLICAS}}
    return {"bases": [served], "affinity": name == _AFFINITY}


def _metrics(url: str) -> str:
    with urlopen(f"{url}/metrics", timeout=30) as answer:
        text: str = answer.read().decode()
    return text


def _sample(text: str, kind: str) -> float:
    start = _CACHE.format(kind)
    return next(float(line[len(start) :]) for line in text.splitlines() if line.startswith(start))


async def asked(side: Side, models: Sequence[Model], load: Load, seed: int, count: int) -> Record:
    """Send so many requests, eight at a time; return what was seen."""
    async with connected(side.url, None) as wires:
        target = Target(wires, models, seed)
        return checked(
            await closed_loop(target, load.requests(seed), _CALLERS, Ending(requests=count))
        )


def in_turns(
    both: dict[str, Side], models: Sequence[Model], load: Load, rounds: int, count: int
) -> dict[str, dict[str, Any]]:
    """Return each side's figures over all rounds; as many requests before them fill memories."""
    for side in both.values():
        asyncio.run(asked(side, models, load, 0, rounds * count))
    before = {name: side.counted() for name, side in both.items()}
    firsts: dict[str, list[dict[str, float]]] = {name: [] for name in both}
    for seed in range(1, rounds + 1):
        for name, side in both.items():
            record = asyncio.run(asked(side, models, load, seed, count))
            firsts[name].append(spread(map(ttft, record.seen)) or {})
    return {
        name: {
            "hit_rate": _rate(before[name], side.counted()),
            "first_token_p50_s": statistics.median(found["p50"] for found in firsts[name]),
            "first_token_p95_s": statistics.median(found["p95"] for found in firsts[name]),
        }
        for name, side in both.items()
    }


def _rate(before: tuple[float, float], after: tuple[float, float]) -> float:
    hits, misses = (late - early for early, late in zip(before, after, strict=True))
    return hits / (hits + misses)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench ray", description=__doc__.splitlines()[0])
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--skew", type=positive, default=1.0, help="of Zipf's law")
    parser.add_argument("--parts", type=positive, nargs="+", default=[1.0, 0.25])
    sides_known = [_AFFINITY, _CHANCE]
    parser.add_argument("--only", nargs="+", choices=sides_known, default=sides_known)
    parser.add_argument("--requests", type=int, default=200, help="of one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    options = parser.parse_args(arguments)
    fixed = Lengths("fixed", (_PROMPT,)), Lengths("fixed", (_NEW,))
    load = Load(options.adapters, options.skew, *fixed)
    rows = []
    with (
        base_on_disk(options.width, options.layers) as (base, spec, scratch),
        closing(EmbeddedServer(scratch / "registry")) as server,
    ):
        files, packer = Files(spec, _N, scratch / "file"), Packer(spec)
        packer.from_file(files.write(0))
        assert packer.bank is not None
        models = _registered(server.url, scratch, files, options.adapters)
        for part in options.parts:
            room = int(part * (options.adapters + 1) * packer.bank.row_bytes)
            with sides(options.only, base, scratch, server.url, room) as both:
                found = in_turns(both, models, load, options.rounds, options.requests)
            rows += [
                {"what": name, "room": part, "adapters": options.adapters, **figures}
                for name, figures in found.items()
            ]
    report("ray", rows)


def _registered(url: str, scratch: Path, files: Files, count: int) -> list[Model]:
    """Register so many adapters, and return them."""
    with connect(url, scratch / "data", store=scratch / "store") as registry:
        registry.open_store()
        register(registry, files, range(count))
        names = [name_of(number) for number in range(count)]
        return [Model(name, registry.adapters.resolve(name).digest) for name in names]
