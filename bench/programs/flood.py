"""One tenant floods the server: what another's first tokens cost meanwhile.

What: tenant B asks now and then (Poisson, its requests take up a tenth of the server's time); its
times to the first token are taken while it is alone, while tenant A asks just as often, and while A
asks fifty times as often, five times more than the server can do. The three take turns. Target:
B's 99th percentile under the flood is at most 1.5 times the one beside a tenant like itself.
Why: a tenant must not wait for another tenant's queue. It does wait for the step that runs when its
request arrives, and for the other rows of its own steps: `--max-step-tokens` bounds both.

    overtone bench flood [--seconds 30 | --requests 60] [--rounds 3] [--width 1024] [--layers 8]
"""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch

from adapters_core.base.spec import BaseSpec
from adapters_core.format.write import write_adapter
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.methods import FourierFT
from bench.lib.bases import random_adapter, targets_of
from bench.lib.load import Lengths, Load
from bench.lib.load_runner import Ending, Model, Record, Target, closed_loop, connected, open_loop
from bench.lib.program import Parser, positive
from bench.lib.servers import base_on_disk, served
from bench.lib.summary import spread, ttft
from bench.lib.timing import machine
from overtone_client import Client

KEYS = {"a": "key-of-tenant-a", "b": "key-of-tenant-b"}
#: Phase -> how many times B's rate A asks with.
PHASES = {"alone": 0, "normal": 1, "flood": 50}
_NUM_ADAPTERS = 4
_LEAD_S = 2.0
_MOST_OUTSTANDING = 512


@dataclass(frozen=True)
class Traffic:
    """What both tenants' requests look like.

    Args:
        prompt_tokens, output_tokens: of every request.
        share: of the server's time that B's requests take up.
        seconds: of each phase in a round.
        rounds: how often each phase is measured.
        requests: of B in each phase, however long they take; None: as many as the seconds have.
    """

    prompt_tokens: int = 512
    output_tokens: int = 16
    share: float = 0.1
    seconds: float = 30.0
    rounds: int = 3
    requests: int | None = None

    @property
    def ending(self) -> Ending:
        """Return when a phase is over."""
        return Ending(None if self.requests else self.seconds, self.requests)

    def load(self, rate: float | None) -> Load:
        """Return the load of one tenant at so many requests a second."""
        prompt = Lengths("fixed", (self.prompt_tokens,))
        return Load(_NUM_ADAPTERS, 1.0, prompt, Lengths("fixed", (self.output_tokens,)), rate)


@dataclass
class Tenants:
    """The two tenants at one server.

    Args:
        a, b: where each sends its requests; by its own key, with prompts of its own.
    """

    a: Target
    b: Target
    traffic: Traffic
    seeds: "count[int]" = field(default_factory=count)

    async def rate(self) -> float:
        """Return B's requests a second, from how long one takes on an idle server."""
        requests = self.traffic.load(None).requests(next(self.seeds))
        await closed_loop(self.b, requests, 1, Ending(requests=3))
        seen = (await closed_loop(self.b, requests, 1, Ending(requests=8))).seen
        assert all(one.code is None for one in seen), seen
        times = sorted(one.done_s - one.sent_s for one in seen)
        return self.traffic.share / times[len(times) // 2]

    async def phase(self, rate: float, times: int) -> tuple[Record, Counter[str]]:
        """Return what B saw while A asked `times` as often, and what became of A's requests."""
        others, outcomes = None, Counter[str]()
        if times:
            load = self.traffic.load(times * rate).requests(next(self.seeds))
            others = asyncio.create_task(
                open_loop(self.a, load, _MOST_OUTSTANDING, Ending(), lambda r: _note(r, outcomes))
            )
            await asyncio.sleep(_LEAD_S)
        requests = self.traffic.load(rate).requests(next(self.seeds))
        seen = await open_loop(self.b, requests, 64, self.traffic.ending)
        if others is not None:
            others.cancel()
            await asyncio.gather(others, return_exceptions=True)
        await _idle(self.b, self.traffic.load(None))
        return seen, outcomes


def _note(record: Record, outcomes: Counter[str]) -> None:
    outcomes[record.seen[-1].code or "answered"] += 1


async def _idle(target: Target, load: Load) -> None:
    """Wait until the server has nothing more to do; the gauges move with its steps."""
    gauges = ("overtone_requests_running ", "overtone_requests_waiting ")
    while True:
        await closed_loop(target, load.requests(0), 1, Ending(requests=1))
        text = (await target.wires.request("GET", "/metrics")).body().decode()
        held = [line for line in text.splitlines() if line.startswith(gauges)]
        if all(float(line.split()[-1]) == 0 for line in held):
            return


async def measure(url: str, models: Sequence[Model], traffic: Traffic) -> dict[str, Any]:
    """Return B's times to the first token by phase, and the ratios of their 99th percentiles.

    Raises:
        AssertionError: an answer to B was wrong or refused.
    """
    times: defaultdict[str, list[float]] = defaultdict(list)
    flooded: Counter[str] = Counter()
    async with connected(url, KEYS["a"]) as wires_a, connected(url, KEYS["b"]) as wires_b:
        tenants = Tenants(Target(wires_a, models, 1), Target(wires_b, models, 2), traffic)
        rate = await tenants.rate()
        for _ in range(traffic.rounds):
            for name, factor in PHASES.items():
                record, outcomes = await tenants.phase(rate, factor)
                refused = {one.code for one in record.seen} - {None}
                assert not refused, f"B was refused: {refused}"
                times[name] += [ttft(one) for one in record.seen]
                flooded += outcomes if name == "flood" else Counter()
    return _result(rate, times, flooded)


def _result(rate: float, times: dict[str, list[float]], flooded: Counter[str]) -> dict[str, Any]:
    spreads = {name: spread(values) or {} for name, values in times.items()}
    p99 = {name: spreads[name]["p99"] for name in PHASES}
    return {
        "rate": rate,
        "answers": {name: len(values) for name, values in times.items()},
        "ttft_s": spreads,
        "flood_to_normal_p99": p99["flood"] / p99["normal"],
        "flood_to_alone_p99": p99["flood"] / p99["alone"],
        "flood_to_normal_p50": spreads["flood"]["p50"] / spreads["normal"]["p50"],
        "flooder": dict(flooded),
    }


def upload(url: str, spec: BaseSpec, folder: Path) -> list[Model]:
    """Upload the adapters that both tenants ask for."""
    shapes = {target: spec.targets[target] for target in targets_of(spec, "qv")}
    bases = BasisCache(torch.device("cpu"))
    models = []
    with Client(url, api_key=KEYS["b"]) as client:
        for i in range(_NUM_ADAPTERS):
            write_adapter(folder, *random_adapter(FourierFT(1000), shapes, bases, i), spec)
            record = client.upload(folder, name=f"adapter-{i}")
            models.append(Model(record.name, record.digest))
    return models


def flood(width: int, layers: int, traffic: Traffic, **settings: str | int) -> dict[str, Any]:
    """Start a server on a base of this shape, and measure."""
    keys = ",".join(KEYS.values())
    with (
        base_on_disk(width, layers) as (base, spec, scratch),
        served(base, scratch / "data", api_keys=keys, **settings) as server,
    ):
        models = upload(server.url, spec, scratch / "adapter")
        return asyncio.run(measure(server.url, models, traffic))


def main() -> None:
    """Measure, and print one JSON line."""
    parser = Parser(prog="overtone bench flood", description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=Traffic.prompt_tokens)
    parser.add_argument("--output", type=int, default=Traffic.output_tokens)
    parser.add_argument("--share", type=positive, default=Traffic.share)
    parser.add_argument("--seconds", type=positive, default=Traffic.seconds)
    parser.add_argument("--rounds", type=int, default=Traffic.rounds)
    parser.add_argument("--requests", type=int, help="of B in each phase, instead of --seconds")
    parser.add_argument("--max-step-tokens", type=int, default=512)
    o = parser.parse_args()
    traffic = Traffic(o.prompt, o.output, o.share, o.seconds, o.rounds, o.requests)
    result = flood(o.width, o.layers, traffic, max_step_tokens=o.max_step_tokens)
    print(json.dumps({"bench": "flood", "machine": machine(), "options": vars(o), **result}))
