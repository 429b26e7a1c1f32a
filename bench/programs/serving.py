"""A running server under traffic: first tokens, gaps, throughput, goodput, fairness.

What: requests of random prompts go to many adapters of a server, by URL, as an open loop (Poisson
arrivals, independent of the answers) or a closed one (clients with one request at a time). Every
answer is compared with the digest that was asked for and the length that was wanted.
Why: a step's speed says little about latency under the load of a hundred clients.
In an open loop times count from when a request was due, so a stalled server shows. How late
requests were sent (`late_s`) and how many were dropped is the share of the load generator.

    overtone bench serving --url http://HOST:8000 --adapters 100 --zipf 1.0 --loop closed
    overtone bench serving --make 50 --base DIR --loop open --rate 20 --duration 60 --picture a.png
"""

import argparse
import asyncio
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from secrets import randbits
from typing import Any

from rich.console import Console

from bench.lib.load import FORMS, Lengths, Load
from bench.lib.load_runner import (
    Ending,
    Model,
    Record,
    Target,
    Tell,
    closed_loop,
    connected,
    open_loop,
)
from bench.lib.picture import check_picture, draw
from bench.lib.program import Parser, positive
from bench.lib.summary import Promise, summary
from bench.lib.timing import machine
from bench.lib.uploads import RandomAdapters, made_adapters
from overtone_client import Adapter, Client, InvalidArgument

_DEFAULT_DURATION_S = 30.0
_WARM_UP_CLIENTS = 8


def _parser() -> Parser:
    parser = Parser(prog="overtone bench serving", description=__doc__.splitlines()[0])
    server = parser.add_argument_group("the server")
    server.add_argument("--url", default=os.environ.get("OVERTONE_URL", "http://127.0.0.1:8000"))
    server.add_argument("--api-key", default=os.environ.get("OVERTONE_API_KEY") or None)
    server.add_argument("--timeout", type=positive, default=120.0, help="seconds for one answer")
    models = parser.add_argument_group("which adapters are asked")
    models.add_argument("--adapters", type=int, help="so many of the registered ones; 0: the base")
    models.add_argument("--prefix", help="only adapters whose names begin so")
    models.add_argument("--make", type=int, help="upload so many random ones; deleted at the end")
    models.add_argument("--method", default="fourierft", help="of --make")
    models.add_argument("--config", type=json.loads, default={}, help="of --make: '{\"n\": 1000}'")
    models.add_argument(
        "--base", default=os.environ.get("OVERTONE_BASE"), help="of --make: its shapes"
    )
    models.add_argument("--zipf", type=float, default=1.0, help="skew over the adapters; 0 is even")
    load = parser.add_argument_group("the load")
    load.add_argument("--loop", choices=["open", "closed"], default="closed")
    load.add_argument("--rate", type=positive, help="requests a second of an open loop")
    load.add_argument("--clients", type=int, default=8, help="callers of a closed loop")
    load.add_argument("--outstanding", type=int, default=1024, help="most at once in an open loop")
    load.add_argument("--duration", type=positive, help=f"seconds ({_DEFAULT_DURATION_S:g})")
    load.add_argument("--requests", type=int, help="stop after so many requests")
    load.add_argument("--warm-up", type=int, default=32, help="requests before it, not counted")
    load.add_argument("--prompt", type=_lengths, default="lognormal:128:0.5", help=FORMS)
    load.add_argument("--output", type=_lengths, default="lognormal:64:0.5", help=FORMS)
    load.add_argument("--vocabulary", type=int, default=256, help="prompts' ids are below this")
    load.add_argument("--seed", type=int, help="the same traffic again; its prompts may be cached")
    report = parser.add_argument_group("the report")
    report.add_argument("--slo-ttft", type=positive, default=1.0, help="promised seconds")
    report.add_argument(
        "--slo-itl", type=positive, default=0.2, help="promised seconds, on average"
    )
    report.add_argument("--out", type=Path, help="also write the JSON here")
    report.add_argument("--picture", type=Path, help="a .png, .pdf or .svg")
    report.add_argument("--json", action="store_true", help="print nothing but the JSON")
    return parser


def _lengths(text: str) -> Lengths:
    """Return what `Lengths.parse` does, with an error that argparse shows whole."""
    try:
        return Lengths.parse(text)
    except InvalidArgument as error:
        raise argparse.ArgumentTypeError(error.message) from error


def _checked(options: argparse.Namespace) -> argparse.Namespace:
    """Return the options with what follows from them. Raises InvalidArgument."""
    if options.loop == "open" and options.rate is None:
        raise InvalidArgument("an open loop needs --rate: requests a second")
    for name in ("clients", "outstanding", "requests", "make"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise InvalidArgument(f"--{name} must be at least 1, not {getattr(options, name)}")
    if options.zipf < 0 or options.warm_up < 0 or options.vocabulary < 2:
        raise InvalidArgument("--zipf and --warm-up are not negative, --vocabulary is at least 2")
    if not isinstance(options.config, dict):
        raise InvalidArgument("--config is not a JSON object of the method's hyper-parameters")
    if options.make is not None and options.base is None:
        raise InvalidArgument("--make needs --base: the folder or hub id that the server serves")
    if options.duration is None and options.requests is None:
        options.duration = _DEFAULT_DURATION_S
    if options.seed is None:
        options.seed = randbits(32)
    if options.picture is not None:
        check_picture(options.picture)
    return options


#: What a person is shown -> how.
_PACES = {
    "requests_s": "requests/s",
    "output_tokens_s": "output tokens/s",
    "prompt_tokens_s": "prompt tokens/s",
}
_POINTS = ("mean", "p50", "p90", "p95", "p99", "max")
_TIMES = {
    "ttft_s": "first token",
    "itl_s": "between two tokens",
    "latency_s": "whole answer",
    "late_s": "sent late by",
}


class _Speaker:
    """Progress, for a person at a terminal only."""

    def __init__(self, is_quiet: bool) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._shows = self._console.is_terminal and not is_quiet

    def say(self, text: str) -> None:
        """Show one line over the one before."""
        if self._shows:
            self._console.print(text, end="\r", soft_wrap=True)

    def on_record(self, record: Record) -> None:
        """Show how far a run is."""
        failed = sum(seen.code is not None for seen in record.seen[-1000:])
        at = record.seen[-1].done_s
        self.say(
            f"{at:6.1f} s  {len(record.seen)} answered  {record.dropped} dropped  {failed} bad"
        )


@contextmanager
def _models(
    options: argparse.Namespace, client: Client, version: dict[str, Any], speaker: _Speaker
) -> Iterator[list[Model]]:
    """What is asked: made ones, registered ones, or the base."""
    if options.make is not None:
        fingerprint = version["base"]["fingerprint"]
        random = RandomAdapters(
            options.make, options.method, options.config, options.base, fingerprint
        )
        with made_adapters(client, random, speaker.say) as made:
            yield _named(made)
    elif options.adapters == 0:
        yield [Model(version["base"]["name"], None)]
    else:
        found = client.list_adapters(limit=options.adapters, prefix=options.prefix)
        adapters = list(islice(found, options.adapters))
        wanted = options.adapters or 1
        if len(adapters) < wanted:
            raise InvalidArgument(
                f"{len(adapters)} adapters are registered at {options.url}, {wanted} are wanted; "
                "upload some, let --make N --base DIR do it, or ask the base with --adapters 0"
            )
        yield _named(adapters)


def _named(adapters: Sequence[Adapter]) -> list[Model]:
    return [Model(adapter.name, adapter.digest) for adapter in adapters]


async def _version(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the server says it is."""
    async with connected(options.url, options.api_key) as wires:
        exchange = await wires.request("GET", "/version")
    try:
        found: dict[str, Any] = json.loads(exchange.body())
        refusal = found["error"]["message"] if exchange.status != 200 else None
        if refusal is None:
            found["base"]["name"], found["base"]["fingerprint"], found["max_length"]
    except (ValueError, LookupError, TypeError) as wrong:
        raise InvalidArgument(f"{options.url} is not an Overtone server's URL") from wrong
    if refusal is not None:
        raise InvalidArgument(f"{options.url} cannot be measured: {refusal}")
    return found


async def measure(
    options: argparse.Namespace, models: Sequence[Model], longest: int, tell: Tell
) -> Record:
    """Warm up, run the loop, and return what was seen."""
    load = Load(
        len(models),
        options.zipf,
        options.prompt,
        options.output,
        options.rate if options.loop == "open" else None,
        longest,
    )
    ending = Ending(options.duration, options.requests)
    async with connected(options.url, options.api_key) as wires:

        def target(seed: int) -> Target:
            return Target(wires, models, seed, options.vocabulary, options.timeout)

        if options.warm_up:
            others = load.requests(options.seed + 1)
            warm = Ending(requests=options.warm_up)
            await closed_loop(target(options.seed + 1), others, _WARM_UP_CLIENTS, warm)
        requests = load.requests(options.seed)
        if options.loop == "open":
            asked = target(options.seed)
            return await open_loop(asked, requests, options.outstanding, ending, tell)
        return await closed_loop(target(options.seed), requests, options.clients, ending, tell)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options for the report, without the key."""
    kept = {name: value for name, value in vars(options).items() if name != "api_key"}
    return {
        name: str(value) if isinstance(value, Path | Lengths) else value
        for name, value in kept.items()
    }


def _print(found: dict[str, Any]) -> None:
    """Print the main figures for a person."""
    asked, pace, good = found["requests"], found["throughput"], found["goodput"]
    errors = ", ".join(f"{count} {code}" for code, count in asked["errors"].items())
    counts = (f"{asked[name]} {name}" for name in ("planned", "completed", "failed", "dropped"))
    print("requests   ", ", ".join(counts) + f" ({errors})" * bool(errors))
    print("throughput ", ", ".join(f"{_short(pace[n])} {unit}" for n, unit in _PACES.items()))
    limits = f"first token in {good['slo_ttft_s']:g} s, gaps of {good['slo_itl_s']:g} s"
    print(f"goodput     {_short(good['requests_s'])} requests/s, {good['share']:.1%} ({limits})")
    print("fairness   ", _fairness(found["fairness"]))
    print(f"{'seconds':<20}" + "".join(f"{name:>10}" for name in _POINTS))
    for name, label in _TIMES.items():
        values = found[name] or {}
        print(f"{label:<20}" + "".join(f"{_short(values.get(point)):>10}" for point in _POINTS))


def _fairness(found: dict[str, Any]) -> str:
    indexes = {"latency": found["jain_latency"], "tokens": found["jain_tokens"]}
    said = [f"Jain's index of {n} {_short(v)}" for n, v in indexes.items() if v is not None]
    return ", ".join([f"{found['adapters_answered']} adapters answered", *said])


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print.

    Raises:
        OvertoneError: there is no server, nothing to ask, or an option that cannot be used.
    """
    options = _checked(_parser().parse_args(arguments))
    speaker = _Speaker(options.json)
    version = asyncio.run(_version(options))
    with (
        Client(options.url, options.api_key) as client,
        _models(options, client, version, speaker) as models,
    ):
        longest = version["max_length"]
        record = asyncio.run(measure(options, models, longest, speaker.on_record))
    figures = summary(record, models, options.zipf, Promise(options.slo_ttft, options.slo_itl))
    found = {
        "bench": "serving",
        "machine": machine(),
        "server": version,
        "settings": _settings(options) | {"num_models": len(models)},
        **figures,
    }
    if options.picture is not None:
        title = f"{options.loop} loop, {len(models)} adapters, Zipf {options.zipf:g}"
        draw(record, title, options.picture)
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=2) + "\n")
    if not options.json:
        _print(found)
    print(json.dumps(found), flush=True)
