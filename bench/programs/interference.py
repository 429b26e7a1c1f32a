"""How much training slows down serving on the same cores.

What: clients keep a server busy (closed loop, an adapter each) while a worker on the same machine
is idle, starts a job, and trains; the phases take turns, and one job is paused and resumed over
REST. The time between one token and the next, at its 50th and 99th percentile; tokens/s; the job's
steps/s beside the clients and with the machine to itself.
Why: a worker on a serving machine may use idle cores, and no more.
The load generator shares the machine with both: its cost is part of every figure.

    overtone bench beside [--separate] [--targets qv|seven] [--rounds 3] [--seconds 10]
"""

import asyncio
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from adapters_core.base.spec import BaseSpec
from bench.lib.load import Lengths, Load
from bench.lib.load_runner import Ending, Model, Target, closed_loop, connected
from bench.lib.names import name_of
from bench.lib.program import Parser, positive
from bench.lib.servers import Files, base_on_disk
from bench.lib.summary import gaps, spread
from bench.lib.timing import report
from bench.lib.worker import LongJob, Pair, filed, paired, write_texts
from bench.programs.http import checked
from overtone_client import Client

_PHASES = ("alone", "starting", "beside")
_N = 1000
#: Short prompts: what is between two tokens is to be decoding, not other callers' prompts.
_PROMPT, _ANSWER = Lengths("fixed", (16,)), Lengths("uniform", (96, 160))
#: More epochs than any run of this lasts.
_EPOCHS = 1000


@dataclass(frozen=True)
class _Called(Ending):
    """An ending that is set from outside."""

    over: threading.Event = field(default_factory=threading.Event)

    def is_over(self, at_s: float) -> bool:
        return self.over.is_set()


@dataclass(frozen=True)
class Seen:
    """What callers saw in one phase.

    Args:
        gaps_s: between one token and the next.
        tokens_s: of all callers together.
    """

    gaps_s: list[float]
    tokens_s: float

    @property
    def spread_ms(self) -> dict[str, float]:
        """Return the percentiles of the gaps in milliseconds."""
        return {name: 1e3 * value for name, value in (spread(self.gaps_s) or {}).items()}


@dataclass
class Callers:
    """Clients in a closed loop, one adapter each.

    Args:
        url: of the server.
        models: their adapters.
    """

    url: str
    models: Sequence[Model]

    def __post_init__(self) -> None:
        self._seeds = count(1)

    def during(self, wait: Callable[[], None]) -> Seen:
        """Return their figures until `wait`, in a thread of its own, returns."""
        return asyncio.run(self._during(wait))

    async def _during(self, wait: Callable[[], None]) -> Seen:
        seed, ending = next(self._seeds), _Called()
        requests = Load(len(self.models), 0.0, _PROMPT, _ANSWER).requests(seed)
        async with connected(self.url, None) as wires:
            target = Target(wires, self.models, seed)
            traffic = asyncio.create_task(closed_loop(target, requests, len(self.models), ending))
            started = time.perf_counter()
            try:
                await asyncio.to_thread(wait)
            finally:
                seconds = time.perf_counter() - started
                ending.over.set()
            seen = checked(await traffic).seen
        kept = [replace(one, tokens_s=_until(seconds, one.tokens_s)) for one in seen]
        arrived = sum(len(one.tokens_s) for one in kept)
        return Seen([gap for one in kept for gap in gaps(one)], arrived / seconds)


def _until(seconds: float, times: Sequence[float]) -> tuple[float, ...]:
    return tuple(at for at in times if at <= seconds)


@dataclass(frozen=True)
class Pace:
    """The speed of a job: steps a second, and how many cores it uses."""

    steps_s: float
    cores: float


@dataclass(frozen=True)
class Round:
    """One turn of all phases.

    Args:
        seen: phase -> what callers saw.
        pace: of the job beside the callers, and by itself.
    """

    seen: dict[str, Seen]
    pace: dict[str, Pace]

    def ratio(self, phase: str, mark: str) -> float:
        """Return a percentile's ratio to that of serving alone."""
        return self.seen[phase].spread_ms[mark] / self.seen["alone"].spread_ms[mark]


def paced(job: LongJob, seconds: float) -> Pace:
    """Return the speed of the job over the next seconds."""
    step, cpu_s, started = job.step, job.cpu_s, time.perf_counter()
    time.sleep(seconds)
    took = time.perf_counter() - started
    return Pace((job.step - step) / took, (job.cpu_s - cpu_s) / took)


def one_round(callers: Callers, job: LongJob, seconds: float) -> Round:
    """Run all phases; the job is held before and afterwards."""
    seen, pace = {}, {}

    def train() -> None:
        pace["beside"] = paced(job, seconds)

    seen["alone"] = callers.during(lambda: time.sleep(seconds))
    held_at = job.step
    job.go_on()
    seen["starting"] = callers.during(lambda: job.wait_until_it_trains(held_at))
    seen["beside"] = callers.during(train)
    pace["by itself"] = paced(job, seconds)
    job.hold()
    return Round(seen, pace)


def rows_of(rounds: Sequence[Round], worker: str) -> list[dict[str, Any]]:
    """Return one row for each phase, and two of the training: medians over the rounds."""
    rows = [_row(rounds, phase) for phase in _PHASES]
    for phase in ("beside", "by itself"):
        paces = [one.pace[phase] for one in rounds]
        row = {"what": f"training, {phase}", "steps_s": _median(pace.steps_s for pace in paces)}
        rows.append(row | {"cores": _median(pace.cores for pace in paces)})
    return [{"worker": worker} | row for row in rows]


def _row(rounds: Sequence[Round], phase: str) -> dict[str, Any]:
    seen = [one.seen[phase] for one in rounds]
    row: dict[str, Any] = {"what": f"between tokens, {phase}"}
    for mark in ("p50", "p99", "max"):
        row[f"{mark}_ms"] = _median(one.spread_ms[mark] for one in seen)
    row["tokens_s"] = _median(one.tokens_s for one in seen)
    if phase != "alone":
        row["p50_ratio"] = _median(one.ratio(phase, "p50") for one in rounds)
        ratios = [one.ratio(phase, "p99") for one in rounds]
        row |= {"p99_ratio": _median(ratios), "p99_ratios": [round(each, 3) for each in ratios]}
    return row


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def uploaded(client: Client, spec: BaseSpec, folder: Path, streams: int) -> list[Model]:
    """Upload an adapter for each caller."""
    files, models = Files(spec, _N, folder), []
    for number in range(streams):
        made = client.upload(files.write(number), name_of(number))
        models.append(Model(made.name, made.digest))
    return models


def started_job(pair: Pair, client: Client, scratch: Path, targets: str, batch: int) -> LongJob:
    """File a job, wait until it trains, and hold it."""
    file = client.training.upload(write_texts(scratch / "texts.jsonl", 640, 255))
    made = filed(client, file.id, "long", targets, n_epochs=_EPOCHS, batch_size=batch)
    job = LongJob(pair, client, made.id)
    job.wait_until_it_trains(0)
    job.hold()
    return job


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench beside", description=__doc__.splitlines()[0])
    parser.add_argument("--separate", action="store_true", help="a worker started by itself")
    parser.add_argument("--targets", choices=["qv", "seven"], default="qv")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--batch", type=int, default=2, help="texts of 256 tokens in a step")
    parser.add_argument("--nice", type=int, default=19, help="of the worker's jobs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=positive, default=10.0, help="of each phase")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    options = parser.parse_args(arguments)
    worker = "separate" if options.separate else "with the server"
    with ExitStack() as stack:
        base, spec, scratch = stack.enter_context(base_on_disk(options.width, options.layers))
        pair = stack.enter_context(paired(base, scratch / "data", options.separate, options.nice))
        client = stack.enter_context(Client(pair.server.url))
        models = uploaded(client, spec, scratch / "adapter", options.streams)
        job = started_job(pair, client, scratch, options.targets, options.batch)
        callers = Callers(pair.server.url, models)
        callers.during(lambda: time.sleep(min(2.0, options.seconds)))  # warm-up
        rounds = [one_round(callers, job, options.seconds) for _ in range(options.rounds)]
        job.end()
    report("beside", rows_of(rounds, worker))
