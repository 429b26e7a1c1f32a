"""Every panel, while the real program serves a load and its worker trains.

With OVERTONE_PANELS=docs/dashboards.md the table of that page is written from what they showed.
"""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bench.lib.timing import machine
from live import CONFIG, FILE
from program import PROGRAM, Program, environment
from training_parts import JOBS, TEXTS, jsonl
from waiting import until

from .panel_values import rows
from .test_dashboard import DASHBOARDS, PANELS, QUERIES, assert_rules_work, filled_in, unanswered

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/dashboards.md"
DEMO = ROOT / "trainer" / "demo"
TABLE = "| dashboard | panel | shows | sample |\n| -- | -- | -- | -- |\n"
#: Room for two merged copies of the load's adapters: the others are evicted and made again.
SETTINGS = {"mode": "merged", "merged_bytes": 900_000, "calibration_s": 0, "with_worker": True}
LOAD = ("--make=6", f"--base={DEMO / 'base'}", "--clients=4", "--prompt=fixed:16")
DEADLINE_S = 120.0


@pytest.mark.prometheus
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_panel_shows_numbers_under_load(
    scraped: Callable[[str], Any], tmp_path: Path
) -> None:
    log = tmp_path / "server.log"
    with closing(Program(DEMO / "base", tmp_path / "data", log, settings={**SETTINGS})) as server:
        prometheus = scraped(server.url)
        instance = server.url.removeprefix("http://")
        begin_job(server)
        with load_on(server.url):
            for begun in ("overtone_train_steps_total", "overtone_generation_tokens_total"):
                until(lambda begun=begun: any(prometheus.query(begun)), DEADLINE_S)
            assert unanswered(prometheus, instance, lambda: ask(server)) == []
            values = {q: prometheus.series(filled_in(q, instance)) for _, q in QUERIES}
        assert_rules_work(prometheus)
    if os.environ.get("OVERTONE_PANELS"):
        table = "\n".join(rows(DASHBOARDS, values)).replace(instance, "server:8000")
        write(ROOT / os.environ["OVERTONE_PANELS"], table)


def begin_job(server: Program) -> None:
    """File a training job that runs longer than the test."""
    files = {"file": ("texts.jsonl", jsonl(*TEXTS))}
    filed = server.http.post("/v1/files", data={"purpose": "fine-tune"}, files=files)
    body = {"model": "tiny", "training_file": filed.json()["id"]}
    made = server.http.post(JOBS, json={**body, "hyperparameters": {"n_epochs": 1000}})
    assert made.status_code == 200, made.text


@contextmanager
def load_on(url: str) -> Iterator[None]:
    """Have the product's own load generator ask the server until the block ends."""
    command = [PROGRAM, "bench", "serving", f"--url={url}", *LOAD, "--duration=300"]
    process = subprocess.Popen(
        [*command, "--output=fixed:16", "--json"], stdout=subprocess.DEVNULL, env=environment()
    )
    try:
        yield
        assert process.poll() is None  # it ran all the time
    finally:
        process.kill()
        process.wait(30)


def ask(server: Program) -> None:
    """Upload, list, ask an adapter of the load's and a wrong name: operations on the registry."""
    source = DEMO / "adapters" / "legalese"
    files = {part: (source / part).read_bytes() for part in (CONFIG, FILE)}
    assert server.upload("legalese", files).status_code in (200, 201)
    listed = server.http.get("/v1/adapters", params={"prefix": "bench-", "limit": 1}).json()
    server.tokens(listed["data"][0]["name"])
    wrong = server.http.post("/v1/completions", json={"model": "no-such", "prompt": "x"})
    assert wrong.status_code == 404


def write(page: Path, table: str) -> None:
    """Put the table in the page's place for it, with when and where it was measured."""
    text = page.read_text()
    told = f"Measured {datetime.now(UTC):%Y-%m-%d} on {machine()['processor']}."
    text = re.sub(r"^Measured .*$", told, text, flags=re.MULTILINE)
    page.write_text(f"{text[: text.index(TABLE)]}{TABLE}{table}\n")


def test_the_page_has_every_panel_and_what_it_showed() -> None:
    _, _, table = PAGE.read_text().partition(TABLE)
    listed = [line.split(" | ") for line in table.splitlines()]
    assert [row[1] for row in listed] == [panel["title"] for panel in PANELS]
    assert [row[2] for row in listed] == [panel["description"] for panel in PANELS]
    assert all(re.search(r"\d", row[3]) for row in listed)
