"""A long run on the demo's base: a thousand streams at once, and memory over very many requests.

What, with 1,000 FourierFT adapters, drawn evenly:
- so many clients start a stream at one moment, three times over: how the answers ended, by code.
  Whole answers, and refusals with 429 where the queue is full, are right; nothing else is;
- requests of a few tokens by 32 clients, in twenty parts: the server's memory after each part.
Why: what leaks a kilobyte a request ends a server within a day.
Growth is the last three parts' median over that of the third to fifth: caches fill before.

    overtone bench endurance [--streams 1000] [--requests 200000] [--adapters 1000] [--new 4]
"""

import asyncio
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters_core.base.spec import BaseSpec, spec_of
from bench.lib.load import Lengths, Load
from bench.lib.load_runner import Ending, Model, Record, Target, closed_loop, connected
from bench.lib.program import Parser
from bench.lib.servers import Files, Served, served
from bench.lib.timing import report
from bench.programs.http import checked
from bench.programs.short_answers import registered

_N, _PROMPT, _STREAM_TOKENS, _CLIENTS = 100, 8, 32, 32
_TIMES, _PARTS = 3, 20
#: Parts whose memory stands for the beginning, and for the end.
_BEGINNING, _END = slice(2, 5), slice(_PARTS - 3, _PARTS)


def demo_base() -> tuple[Path, BaseSpec]:
    """Return the demo's base, and its spec."""
    from transformers import AutoModelForCausalLM

    from server.cli.demo import demo_folder

    folder = demo_folder() / "base"
    return folder, spec_of(AutoModelForCausalLM.from_pretrained(folder), "bench")


async def asked(
    server: Served, models: Sequence[Model], requests: int, clients: int, new: int, seed: int
) -> Record:
    """Send so many requests by so many clients; return what was seen."""
    load = Load(len(models), 0.0, Lengths("fixed", (_PROMPT,)), Lengths("fixed", (new,)))
    async with connected(server.url, None) as wires:
        target = Target(wires, models, seed)
        return await closed_loop(target, load.requests(seed), clients, Ending(requests=requests))


def streams(server: Served, models: Sequence[Model], count: int) -> dict[str, Any]:
    """Start so many streams at one moment, several times; return how they ended."""
    codes: Counter[str] = Counter()
    for number in range(_TIMES):
        record = asyncio.run(asked(server, models, count, count, _STREAM_TOKENS, number))
        codes.update(seen.code or "whole" for seen in record.seen)
        print(f"streams, time {number + 1} of {_TIMES}: {dict(codes)}", flush=True)
    return {"what": f"{count} streams at once, {_TIMES} times", **codes}


def memory(server: Served, models: Sequence[Model], requests: int, new: int) -> dict[str, Any]:
    """Send so many requests in parts; return what memory did. Raises RuntimeError for an error."""
    held: list[int] = []
    for number in range(_PARTS):
        part = asked(server, models, requests // _PARTS, _CLIENTS, new, 1000 + number)
        checked(asyncio.run(part))
        held.append(server.memory_bytes)
        done = (number + 1) * (requests // _PARTS)
        print(f"{done} of {requests} requests: {held[-1] / 1e6:.1f} MB", flush=True)
    return growth(held, requests)


def growth(held: Sequence[int], requests: int) -> dict[str, Any]:
    """Return a row: memory at the beginning and the end, and bytes a request in between.

    Args:
        held: bytes after each part.
        requests: of all parts.
    """
    first, last = statistics.median(held[_BEGINNING]), statistics.median(held[_END])
    between = requests // _PARTS * (_PARTS - 5)  # from the fourth part's end to the last but one's
    return {
        "what": f"memory over {requests} requests",
        "mb": [round(one / 1e6, 1) for one in held],
        "ratio": last / first,
        "bytes_a_request": (last - first) / between,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench endurance", description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--new", type=int, default=4, help="tokens of each request")
    options = parser.parse_args(arguments)
    base, spec = demo_base()
    with (
        tempfile.TemporaryDirectory(prefix="overtone-bench-") as scratch,
        served(base, Path(scratch) / "data") as server,
    ):
        files = Files(spec, _N, Path(scratch) / "file")
        models = registered(server, files, options.adapters)
        rows = [
            streams(server, models, options.streams),
            memory(server, models, options.requests, options.new),
        ]
    report("endurance", rows)
