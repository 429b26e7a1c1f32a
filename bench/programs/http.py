"""What HTTP, uploads and residency add to the engine, on a real server.

What: (streams) tokens/s of 32 streams through HTTP, each another adapter, against the bare engine
loop over the same engine in the same process, in turns; (first-token) time to first token of a
never-seen adapter, asked the moment its upload was answered, against that of one in memory, in
turns; (upload) seconds of an upload, after which the adapter is servable; (memory) what one more
resident adapter takes of the server's memory, against its file.
Why: the engine's ratios are worth little if the way to it costs more.
The load generator shares the machine with the server: what it costs is part of every figure.

    overtone bench http [--only streams first-token upload memory] [--rounds 7] [--width 1024]
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from adapters_core.base.spec import BaseSpec
from bench.lib.load import Lengths, Load
from bench.lib.load_runner import Ending, Model, Record, Target, closed_loop, connected
from bench.lib.names import name_of
from bench.lib.program import Parser
from bench.lib.servers import Files, Served, base_on_disk, register, served, stop
from bench.lib.summary import spread, ttft
from bench.lib.timing import report
from overtone_client import Client

_PARTS = ("streams", "first-token", "upload", "memory")
_STREAMS, _PROMPT = 32, 64
_N = 1000
#: The cache of the server whose memory is watched; small, so that it can be filled beforehand.
_WATCHED_KV_BYTES = 64 << 20


def even(adapters: int, prompt: int, new: int) -> Load:
    """Return traffic that asks all adapters alike, with fixed lengths."""
    return Load(adapters, 0.0, Lengths("fixed", (prompt,)), Lengths("fixed", (new,)))


def checked(record: Record) -> Record:
    """Return the record if every answer was right. Raises RuntimeError."""
    bad = [seen for seen in record.seen if seen.code is not None]
    if bad:
        raise RuntimeError(f"{len(bad)} of {len(record.seen)} answers failed: {bad[0].code}")
    return record


async def ask_each(url: str, models: Sequence[Model], seed: int, prompt: int, new: int) -> Record:
    """Ask every model once, all at the same time; return what was seen."""
    load = even(len(models), prompt, new)
    requests = load.requests(seed)
    each = (replace(next(requests), adapter=i) for i in range(len(models)))
    async with connected(url, None) as wires:
        target = Target(wires, models, seed)
        return checked(await closed_loop(target, each, len(models), Ending()))


class Host:
    """A process of host.py."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.url: str = self._read()["url"]

    def bare(self, new: int, first: int) -> float:
        """Return the seconds of one run of the bare loop."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"new": new, "first": first}) + "\n")
        self._process.stdin.flush()
        return float(self._read()["seconds"])

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process with the server has ended; see what it said above")
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def hosted(base: Path, data: Path, adapters: Path) -> Iterator[Host]:
    """A host until the block ends."""
    command = [
        sys.executable,
        "-m",
        "bench.programs.host",
        "--base",
        str(base),
        "--data",
        str(data),
    ]
    command += ["--adapters", str(adapters)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]
    try:
        yield Host(process)
    finally:
        stop(process)


def stream_row(base: Path, spec: BaseSpec, scratch: Path, rounds: int, new: int) -> dict[str, Any]:
    """Return tokens/s through HTTP and of the bare loop; the ratio is the median of the rounds'."""
    folders = [Files(spec, _N, scratch / "many" / f"{i:02d}") for i in range(_STREAMS)]
    for number, files in enumerate(folders):
        files.write(number)
    over_http, alone = [], []
    with hosted(base, scratch / "host", scratch / "many") as host, Client(host.url) as client:
        made = [client.upload(f.folder, name_of(i)) for i, f in enumerate(folders)]
        models = [Model(adapter.name, adapter.digest) for adapter in made]
        for number in range(rounds + 1):
            record = asyncio.run(ask_each(host.url, models, number, _PROMPT, new))
            over_http.append(record.window_s)
            alone.append(host.bare(new, 1000 * (number + 1)))
    over_http, alone = over_http[1:], alone[1:]
    ratios = [bare / http for bare, http in zip(alone, over_http, strict=True)]
    tokens = _STREAMS * new
    return {
        "what": f"tokens/s of {_STREAMS} streams through HTTP, against the bare loop",
        "http": tokens / statistics.median(over_http),
        "bare": tokens / statistics.median(alone),
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 4) for ratio in ratios],
    }


class Probe:
    """Single requests to one server, a token each."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._seed = 1 << 20

    def first_token(self, model: Model) -> float:
        """Return the seconds to the first token of a prompt that was never sent before."""
        self._seed += 1
        record = asyncio.run(ask_each(self._url, [model], self._seed, _PROMPT, 1))
        return ttft(record.seen[0])


def upload_rows(server: Served, files: Files, count: int, only: Sequence[str]) -> list[Any]:
    """Return the rows of uploads and of first tokens."""
    probe, uploads, cold, warm = Probe(server.url), [], [], []
    with Client(server.url) as client:
        known = _uploaded(client, files, 10**9)
        for _ in range(5):
            probe.first_token(known)
        for number in range(count):
            files.write(number)
            started = time.perf_counter()
            made = client.upload(files.folder, name_of(number))
            uploads.append(time.perf_counter() - started)
            if "first-token" in only:
                cold.append(probe.first_token(Model(made.name, made.digest)))
                warm.append(probe.first_token(known))
    rows = []
    if "upload" in only:
        rows.append(
            {"what": "upload to servable, seconds", "count": count} | (spread(uploads) or {})
        )
    if "first-token" in only:
        rows.append(_first_token_row(cold, warm))
    return rows


def _uploaded(client: Client, files: Files, number: int) -> Model:
    made = client.upload(files.write(number), name_of(number))
    return Model(made.name, made.digest)


def _first_token_row(cold: Sequence[float], warm: Sequence[float]) -> dict[str, Any]:
    return {
        "what": "time to first token of a never-seen adapter, against a warm one",
        "cold_ms": 1e3 * statistics.median(cold),
        "warm_ms": 1e3 * statistics.median(warm),
        "ratio": statistics.median(cold) / statistics.median(warm),
        "paired": statistics.median(c / w for c, w in zip(cold, warm, strict=True)),
    }


def memory_row(server: Served, files: Files, first: int, last: int) -> dict[str, Any]:
    """Return what residents from number `first` to `last` take, an adapter, against a file.

    Memory is what the process has in use. The cache of keys and values is filled beforehand.
    """
    with server.registry() as registry:
        register(registry, files, range(last))
        models = [
            Model(name_of(number), registry.adapters.resolve(name_of(number)).digest)
            for number in range(last)
        ]
    with Client(server.url) as client:
        base = Model(
            next(model.id for model in client.models(limit=1) if model.parent is None), None
        )
    for seed in range(2):
        asyncio.run(ask_each(server.url, [base] * 20, seed, 250, 1))
    taken = {}
    for start, end in ((0, first), (first, last)):
        for at in range(start, end, 16):
            asyncio.run(ask_each(server.url, models[at : min(at + 16, end)], at + 10, 8, 1))
        taken[end] = server.memory_bytes
    each = (taken[last] - taken[first]) / (last - first)
    return {
        "what": "memory of one more resident adapter, against its file",
        "file_bytes": files.size_bytes,
        "resident_bytes": each,
        "from": first,
        "to": last,
        "ratio": each / files.size_bytes,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench http", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=_PARTS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--new", type=int, default=64, help="tokens of each stream")
    parser.add_argument("--count", type=int, default=100, help="uploads, and first tokens")
    parser.add_argument("--residents", type=int, nargs=2, default=[256, 1024])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    options = parser.parse_args(arguments)
    rows = []
    with base_on_disk(options.width, options.layers) as (base, spec, scratch):
        if "streams" in options.only:
            rows.append(stream_row(base, spec, scratch, options.rounds, options.new))
        if {"upload", "first-token"} & set(options.only):
            with served(base, scratch / "uploads", mode="factored") as server:
                files = Files(spec, _N, scratch / "one")
                rows += upload_rows(server, files, options.count, options.only)
        if "memory" in options.only:
            data = scratch / "memory"
            with served(base, data, mode="factored", kv_bytes=_WATCHED_KV_BYTES) as server:
                files = Files(spec, _N, scratch / "one")
                rows.append(memory_row(server, files, *options.residents))
    report("http", rows)
