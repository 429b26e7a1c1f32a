"""Many servers on one registry: what following its changes costs each, and how soon they are heard.

What: 100,000 adapters are registered in a real Valkey that syncs every write; ten processes follow
it with the mirrors of a server (names and API keys; no model, no HTTP: a follower is what a server
has for this, and not the server). Measured: from a process's start to its mirror's first answers;
memory before and after 10,000 names were looked up (the first follower: all); processor time at
rest; then, while a version is published 50 times a second, processor time, and the time from before
a change is sent until each follower has heard it. In the end each follower is asked for changed
adapters and must have the new versions.
Why: each server hears of every change, so their cost must not grow with the adapters.
Only records are registered: no follower reads an adapter's bytes.

    overtone bench followers [--adapters 100000] [--followers 10] [--rate 50] [--seconds 20]
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from adapters_core.format.description import AdapterDescription
from bench.lib.names import name_of
from bench.lib.program import Parser, positive
from bench.lib.summary import spread
from bench.lib.timing import report
from registry.adapters.adapters import Adapters
from registry.adapters.records import NewVersion
from registry.redis.embedded import EmbeddedServer

_REST_S = 10.0
#: Changed adapters that every follower is asked for in the end.
_ASKED = 100
_SETTLE_S = 0.2


class Follower:
    """One process of bench/lib/follower.py.

    Args:
        url: of the registry.
        folder: its data folder.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.started_at = time.monotonic()
        command = [sys.executable, "-m", "bench.lib.follower", url, str(folder)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def send(self, *words: object) -> None:
        """Give a command; `answer` waits for its end."""
        assert self._process.stdin is not None
        print(*words, file=self._process.stdin, flush=True)

    def answer(self) -> Any:
        """Return the answer to the oldest command that has none, or to the start.

        Raises:
            RuntimeError: the process has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a follower ended with status {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@dataclass(frozen=True)
class Marks:
    """What the followers and the server had used at one moment."""

    followers: list[dict[str, float]]
    server_cpu_s: float
    at: float

    def cpu_since(self, before: "Marks") -> tuple[list[float], float]:
        """Return the percents of one core that each follower, and the server, has used since."""
        pairs = zip(self.followers, before.followers, strict=True)
        own = [100 * (b["cpu_s"] - a["cpu_s"]) / (b["at"] - a["at"]) for b, a in pairs]
        return own, 100 * (self.server_cpu_s - before.server_cpu_s) / (self.at - before.at)


def version_of(number: int, version: int) -> NewVersion:
    """Return a version of an adapter whose bytes are nowhere."""
    facts = AdapterDescription(
        digest=f"sha256:{number * 1000 + version:064x}",
        method="fourierft",
        method_config={"n": 1000, "scale": 300.0},
        base_name="bench",
        base_fingerprint="sha256:" + "f" * 64,
        base_verified=True,
        target_modules=tuple(f"model.layers.{i}.self_attn.q_proj" for i in range(8)),
        num_coefficients=8000,
        size_bytes=32_000,
    )
    return NewVersion(name=name_of(number), description=facts, created_at=1)


def fill(server: EmbeddedServer, count: int) -> None:
    """Register adapters; the server syncs nothing meanwhile, and everything afterwards."""
    with server.client() as client:
        client.config_set("appendfsync", "no")
        adapters = Adapters(client)
        for number in range(count):
            adapters.publish(version_of(number, 1))
        client.config_set("appendfsync", "always")


@contextmanager
def following(url: str, folder: Path, count: int) -> Iterator[list[Follower]]:
    """So many followers, none of which has said yet that it has begun."""
    with ExitStack() as stack:
        made = []
        for number in range(count):
            follower = Follower(url, folder / f"follower-{number}")
            stack.callback(follower.close)
            made.append(follower)
        yield made


def marks(followers: Sequence[Follower], server: EmbeddedServer) -> Marks:
    """Ask all for what they have used."""
    for each in followers:
        each.send("mark")
    used = psutil.Process(server.pid).cpu_times()
    found = [each.answer() for each in followers]
    return Marks(found, used.user + used.system, time.monotonic())


def look_up(followers: Sequence[Follower], counts: Sequence[int]) -> None:
    """Have each follower look up so many names."""
    for each, count in zip(followers, counts, strict=True):
        each.send("look_up", count)
    for each in followers:
        each.answer()


def change(server: EmbeddedServer, numbers: range, rate: float) -> dict[str, float]:
    """Publish a second version of each adapter at a steady rate; return when each was sent."""
    sent = {}
    with server.client() as client:
        adapters, begun = Adapters(client), time.monotonic()
        for place, number in enumerate(numbers):
            time.sleep(max(0.0, begun + place / rate - time.monotonic()))
            sent[name_of(number)] = time.monotonic()
            adapters.publish(version_of(number, 2))
    return sent


def delays(followers: Sequence[Follower], sent: dict[str, float]) -> list[float]:
    """Return the seconds of each change to each follower.

    Raises:
        RuntimeError: a follower has not heard every change once, or knows an earlier version.
    """
    found = []
    names = list(sent)
    for each in followers:
        each.send("heard")
        heard = each.answer()
        if [name for name, _ in heard] != names:
            raise RuntimeError(f"a follower heard {len(heard)} of {len(names)} changes in order")
        found += [at - sent[name] for name, at in heard]
        each.send("resolve", *names[:_ASKED])
        if {*each.answer()} != {2}:
            raise RuntimeError("a follower knows earlier versions of changed adapters")
    return found


def measure(options: Any, scratch: Path, server: EmbeddedServer) -> list[dict[str, Any]]:
    """Return the rows."""
    started = time.monotonic()
    fill(server, options.adapters)
    rows: list[dict[str, Any]] = [
        {"what": "register", "adapters": options.adapters, "seconds": time.monotonic() - started}
    ]
    with following(server.url, scratch, 1) as (alone,):
        begun = alone.answer()
        rows.append(_start_row("start of one follower, s", [alone], [begun]))
    with following(server.url, scratch, options.followers) as followers:
        begun_all = [each.answer() for each in followers]
        rows.append(_start_row("start of all at once, s", followers, begun_all))
        before = marks(followers, server)
        some = min(options.looked_up, options.adapters)
        look_up(followers, [options.adapters, *([some] * (len(followers) - 1))])
        after = marks(followers, server)
        rows += _memory_rows(before, after, options.adapters, some)
        time.sleep(options.rest)
        rested = marks(followers, server)
        rows.append(_cpu_row("at rest, % of a core", *rested.cpu_since(after)))
        changed = range(min(int(options.rate * options.seconds), options.adapters))
        sent = change(server, changed, options.rate)
        time.sleep(_SETTLE_S / 10)
        rows.append(
            _cpu_row("while changed, % of a core", *marks(followers, server).cpu_since(rested))
        )
        found = spread(1e3 * each for each in delays(followers, sent)) or {}
    rows.append({"what": "heard after, ms", "changes": len(sent), "rate": options.rate, **found})
    return rows


def _start_row(
    what: str, followers: Sequence[Follower], begun: Sequence[dict[str, float]]
) -> dict[str, Any]:
    pairs = list(zip(followers, begun, strict=True))
    return {
        "what": what,
        "with_python": max(each["caught_up_at"] - one.started_at for one, each in pairs),
        "mirror_alone": max(each["caught_up_at"] - each["loaded_at"] for _, each in pairs),
    }


def _memory_rows(before: Marks, after: Marks, all_: int, some: int) -> list[dict[str, Any]]:
    mib = [[each["rss"] / (1 << 20) for each in m.followers] for m in (before, after)]
    rows: list[dict[str, Any]] = [
        {"what": "memory, MiB", "names": 0, "median": statistics.median(mib[0])}
    ]
    if mib[1][1:]:
        median = statistics.median(mib[1][1:])
        rows.append({"what": "memory, MiB", "names": some, "median": median})
    return [*rows, {"what": "memory, MiB", "names": all_, "median": mib[1][0]}]


def _cpu_row(what: str, followers: Sequence[float], server: float) -> dict[str, Any]:
    median, most = statistics.median(followers), max(followers)
    return {"what": what, "median": median, "most": most, "registry": server}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench followers", description=__doc__.splitlines()[0])
    parser.add_argument("--adapters", type=int, default=100_000)
    parser.add_argument("--followers", type=int, default=10)
    parser.add_argument("--looked-up", type=int, default=10_000, help="names, but of the first")
    parser.add_argument("--rate", type=positive, default=50.0, help="changes a second")
    parser.add_argument("--seconds", type=positive, default=20.0, help="of changes")
    parser.add_argument("--rest", type=positive, default=_REST_S, help="seconds without changes")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="overtone-bench-") as folder:
        server = EmbeddedServer(Path(folder) / "registry")
        try:
            rows = measure(options, Path(folder), server)
        finally:
            server.close()
    report("followers", rows)
