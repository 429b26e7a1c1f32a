"""Callers, writers and too small caches against one server: no answer is ever another's.

The default run races for a few seconds, `./run test slow` for a minute. Ten minutes, and what was
reached in them:

    OVERTONE_RACE_SECONDS=600 .venv/bin/python -m pytest -m slow --log-cli-level=INFO \\
        tests/e2e/test_race.py

The same race finds every one of the builds that are broken here on
purpose.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import race_server
import tiny
from live import Live
from program import Program
from race import TENANT_HEADER, Race, Report
from race_oracle import Oracle, make_oracle
from registry import Directory
from server.adapters.residency import Entry, Residency
from server.scheduling.sequence import TokenSequence

_LOG = logging.getLogger("overtone.race")
#: Room for a handful of adapters out of all that are asked for, in each cache, and for the keys and
#: values of fewer callers than there are.
SMALL = {
    "coefficient_bytes": 60_000,
    "merged_bytes": 1_200_000,
    "kv_bytes": 1 << 20,
    "tenant_header": TENANT_HEADER,
}
SLOW_S = float(os.environ.get("OVERTONE_RACE_SECONDS", "60"))
#: A broken build must be found out within this time.
DETECTED_S = 20.0


@pytest.fixture(scope="module")
def oracle(few_threads: None, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    tokenizer = tiny.tokenizer()
    folder = tmp_path_factory.mktemp("contents")
    return make_oracle(tiny.model("llama"), lambda text: tokenizer(text)["input_ids"], folder, 32)


@pytest.fixture
def program(base_folder: Callable[[str], Path], tmp_path: Path) -> Iterator[Program]:
    """A server in a process of its own, which a coin tells how to serve each request."""
    # Without -P this folder's `registry` and `server` would hide the product's.
    command = (sys.executable, "-P", race_server.__file__)
    made = Program(
        base_folder("llama"), tmp_path / "data", tmp_path / "log", settings=SMALL, command=command
    )
    yield made
    made.close()


def found(program: Program) -> tuple[float, float]:
    """Return how many prompt tokens were found computed, and how many sequences gave way."""
    names = ("overtone_prefix_cached_tokens_total", "overtone_preemptions_total")
    return program.metrics(names[0]), program.metrics(names[1])


def race_whole(program: Program, oracle: Oracle, seconds: float) -> Report:
    """Race, and assert that nothing was wrong, nothing is left over, and much was tested."""
    before = program.metrics("overtone_cache_evictions_total")
    report = Race(program.url, oracle, seconds).run()
    evictions = program.metrics("overtone_cache_evictions_total") - before
    _LOG.info("%s, %.1f evictions/s", report.summary(), evictions / report.seconds)
    _LOG.info("prompt tokens found in the cache: %d; sequences preempted: %d", *found(program))
    assert not report.wrong, "\n".join(report.wrong[:10])
    assert program.metrics("overtone_requests_running") == 0
    assert program.metrics("overtone_requests_waiting") == 0
    assert "Traceback" not in program.log.read_text()
    # Half of what a quiet machine reaches: fewer would put nothing to the test.
    assert report.changes_a_second + evictions / report.seconds >= 25
    assert report.answers >= 20 * seconds
    assert report.cut >= seconds
    assert found(program)[0], "no prefix was put to the test"
    assert {"factored", "merged", "base"} <= set(report.modes)
    assert len(report.digests) >= len(oracle.contents) / 2
    assert report.slowest_s < 30
    return report


def test_no_answer_is_anothers(program: Program, oracle: Oracle) -> None:
    race_whole(program, oracle, 8)


@pytest.mark.slow
@pytest.mark.timeout(SLOW_S + 120)
def test_no_answer_is_anothers_for_long(program: Program, oracle: Oracle) -> None:
    report = race_whole(program, oracle, SLOW_S)
    assert report.digests == {content.digest for content in oracle.contents}


def race_until_wrong(serve: Callable[..., Live], oracle: Oracle, **settings: Any) -> Report:
    live = serve("llama", **(SMALL | settings))
    return Race(live.url, oracle, DETECTED_S, num_clients=40, until_wrong=True).run()


@pytest.mark.parametrize("mode", ["factored", "merged"])
def test_memory_given_to_another_too_early_is_found(
    serve: Callable[..., Live], oracle: Oracle, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """The lease ends when the request is accepted; what it used is then another adapter's."""
    acquire, keep = Residency.acquire, Entry.__setattr__

    def acquire_for_a_moment(self: Residency, *args: Any) -> tuple[Entry, bool]:
        entry, is_new = acquire(self, *args)
        entry.users = 0
        return entry, is_new

    def keep_payload(self: Entry, name: str, value: Any) -> None:
        if name != "payload" or value is not None or not hasattr(self, "payload"):
            keep(self, name, value)

    monkeypatch.setattr(Residency, "acquire", acquire_for_a_moment)
    monkeypatch.setattr(Residency, "release", lambda self, entry: None)
    monkeypatch.setattr(Entry, "__setattr__", keep_payload)
    report = race_until_wrong(serve, oracle, mode=mode)
    assert any("and gave" in each for each in report.wrong), report.summary()


def test_keys_and_values_found_without_their_adapter_are_found_out(
    serve: Callable[..., Live], oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefixes are looked up by their tokens alone."""
    monkeypatch.setattr(TokenSequence, "namespace", property(lambda self: None))
    report = race_until_wrong(serve, oracle)
    assert any("and gave" in each for each in report.wrong), report.summary()


def test_a_name_that_is_not_forgotten_is_found(
    serve: Callable[..., Live], oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mirror of names hears of no change; every answer is right for the digest it states."""
    monkeypatch.setattr(Directory, "forget", lambda self, name: None)
    live = serve("llama", **SMALL)
    report = Race(live.url, oracle, 2.0, num_clients=20).run()
    assert any("answered as" in each for each in report.wrong), report.summary()
