"""`overtone top` against a real server under load: at a terminal of its own, and for programs."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import spectra
from live import Live
from overtone_client import AsyncClient, Client, InsufficientScope

ROOT = "root-of-the-tests"
PROGRAM = [sys.executable, "-W", "error", "-c", "from overtone_client.cli import main; main()"]
ENTERS, LEAVES, SHOWS_CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


@pytest.fixture(scope="module")
def guarded(serve_all: Callable[..., Live]) -> Live:
    live = serve_all(api_keys=f"root={ROOT}", calibration_s=0, mode="factored")
    live.http.headers["Authorization"] = f"Bearer {ROOT}"
    for seed, name in enumerate(("hot", "warm", "cold")):
        assert live.upload(name, spectra.files(seed)).status_code == 201
    return live


@contextmanager
def busy(live: Live) -> Iterator[str]:
    """Have three callers ask without a pause: twice as often of one adapter as of the next.

    Yields:
        seconds in which each of them is answered several times, however slow the machine is.
    """
    stop, answered = threading.Event(), threading.Semaphore(0)

    def ask() -> None:
        with Client(live.url, ROOT) as client:
            while not stop.is_set():
                for name in ("hot", "hot", "warm", "tiny"):
                    client.complete(name, "Once", max_tokens=8, ignore_eos=True)
                    answered.release()

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        began = time.monotonic()
        for _ in range(48):
            assert answered.acquire(timeout=60)
        yield str(max(0.5, time.monotonic() - began))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def top(live: Live, *arguments: str) -> list[str]:
    return [*PROGRAM, "top", "--url", live.url, "--api-key", ROOT, *arguments]


def once(live: Live, *arguments: str, interval: str = "0.5") -> subprocess.CompletedProcess[str]:
    command = top(live, "--once", "--interval", interval, *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_program_gets_what_happened_between_two_looks(guarded: Live) -> None:
    with busy(guarded) as interval:
        done = once(guarded, "--json", "--sort", "tokens", interval=interval)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["base"] == "tiny"
    assert 0.4 < found["seconds"] < 30
    rows = {row["adapter"]: row for row in found["data"]}
    assert set(rows) == {"hot", "warm", None}
    assert found["data"][0] == rows["hot"]
    assert rows["hot"]["requests_per_s"] > rows["warm"]["requests_per_s"] > 0
    assert rows["hot"]["generated_tokens_per_s"] > 0
    assert (rows["hot"]["mode"], rows["hot"]["tiers"]) == ("factored", ["device"])
    assert (rows[None]["mode"], rows[None]["tiers"]) == (None, [])
    assert 0 < rows["hot"]["first_token_p95_s"] < 60
    total = sum(row["requests_per_s"] for row in found["data"])
    assert found["requests_per_s"] == pytest.approx(total)
    assert found["caches"]["coefficients"]["hit_share"] == 1.0
    assert found["caches"]["coefficients"]["entries"] >= 2


def test_counts_are_exact_and_the_last_used_come_first(guarded: Live) -> None:
    before = {one.adapter: one.counts for one in guarded_activity(guarded).adapters}
    with Client(guarded.url, ROOT) as client:
        for name in ("warm", "cold", "cold"):
            client.complete(name, "Once upon", max_tokens=5, ignore_eos=True)
        now = client.activity()
        assert [one.adapter for one in now.adapters][:2] == ["cold", "warm"]
        cold = now.adapters[0].counts
        start = before.get("cold")
        assert cold.requests - (start.requests if start else 0) == 2
        assert cold.generated_tokens - (start.generated_tokens if start else 0) == 10
        assert sum(cold.first_tokens) == cold.requests
        assert [one.adapter for one in client.activity(limit=1).adapters] == ["cold"]
        assert client.activity(limit=0).adapters == ()
        assert now.kv_usage == 0
        assert now.running == 0


def guarded_activity(live: Live) -> Any:
    with Client(live.url, ROOT) as client:
        return client.activity()


@pytest.mark.anyio
async def test_only_keys_for_metrics_see_it(guarded: Live) -> None:
    with Client(guarded.url, ROOT) as client:
        allowed = client.keys.create("ops", ["metrics"]).secret
        other = client.keys.create("alice", ["infer", "upload", "train"]).secret
    async with AsyncClient(guarded.url, allowed) as twin:
        assert (await twin.activity(limit=1)).base == "tiny"
    with Client(guarded.url, other) as client, pytest.raises(InsufficientScope):
        client.activity()


def test_a_table_is_printed_where_there_is_no_terminal(guarded: Live) -> None:
    with busy(guarded) as interval:
        done = once(guarded, "--limit", "1", interval=interval)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert re.match(r"tiny: \d+ of 64 running, \d+ waiting, cache of keys \d+% used", lines[0])
    assert lines[4].split()[:3] == ["ADAPTER", "REQ/S", "TOK/S"]
    assert lines[5].split()[0] == "hot"
    assert lines[5].split()[-2:] == ["factored", "device"]
    assert lines[6].startswith("and ")


def test_wrong_options_and_servers_are_named(guarded: Live) -> None:
    done = once(guarded, "--sort", "size")
    assert done.returncode == 2
    assert "--sort 'size': one of requests, tokens, first-token" in done.stderr
    command = [*PROGRAM, "top", "--once", "--url", "http://127.0.0.1:9"]
    gone = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert gone.returncode == 1
    assert gone.stderr.startswith("error: connection_failed")


class Terminal:
    """The live view at a terminal of its own, of 24 lines of 100 columns."""

    def __init__(self, command: list[str]) -> None:
        self.screen, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        self.before = termios.tcgetattr(self.theirs)
        streams = {"stdin": self.theirs, "stdout": self.theirs, "stderr": self.theirs}
        environment = {**os.environ, "TERM": "xterm-256color"}
        environment.pop("COLUMNS", None)
        self.process = subprocess.Popen(command, **streams, env=environment, start_new_session=True)
        self.seen = b""

    def see(self, wanted: bytes) -> None:
        """Read until `wanted` has appeared since this was called last."""
        start = len(self.seen)
        while wanted not in self.seen[start:]:
            ready, _, _ = select.select([self.screen], [], [], 30)
            assert ready, f"no {wanted!r} in {self.seen[-2000:]!r}"
            self.seen += os.read(self.screen, 65536)

    def type(self, keys: bytes) -> None:
        os.write(self.screen, keys)

    def end(self) -> int:
        """Return the exit code, with all that was shown read."""
        while self.process.poll() is None:
            if select.select([self.screen], [], [], 0.05)[0]:
                self.seen += os.read(self.screen, 65536)
        while select.select([self.screen], [], [], 0.2)[0]:
            self.seen += os.read(self.screen, 65536)
        return self.process.wait(30)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.screen)
        os.close(self.theirs)


@contextmanager
def terminal(live: Live) -> Iterator[Terminal]:
    made = Terminal(top(live, "--interval", "0.2", "--window", "1"))
    try:
        yield made
    finally:
        made.close()


def check_clean(made: Terminal) -> None:
    """Check that the terminal is as it was: its screen, its cursor, its settings."""
    assert made.seen.rindex(LEAVES) > made.seen.rindex(ENTERS)
    assert made.seen.rindex(SHOWS_CURSOR) > made.seen.rindex(b"\x1b[?25l")
    assert termios.tcgetattr(made.theirs) == made.before
    assert b"Traceback" not in made.seen


def test_it_is_live_sorts_by_keys_and_q_ends_it(guarded: Live) -> None:
    with busy(guarded), terminal(guarded) as shown:
        shown.see(b"sorted by requests")
        assert ENTERS in shown.seen
        shown.see(b"hot")
        shown.type(b"n")
        shown.see(b"sorted by name")
        shown.type(b"x")  # a key without a meaning
        shown.see(b"(base)")
        shown.type(b"q")
        assert shown.end() == 0
        check_clean(shown)


def test_ctrl_c_leaves_the_terminal_clean(guarded: Live) -> None:
    with terminal(guarded) as shown:
        shown.see(b"sorted by requests")
        os.killpg(shown.process.pid, signal.SIGINT)
        assert shown.end() == 0
        check_clean(shown)
