"""Every example, run as a process as its header says, against a real demo."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo_scene import running_demo
from program import environment, free_port

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
#: Run by tests/clients, where its libraries are.
OF_CLIENTS = "langchain_and_llamaindex.py"
_LIMIT_S = 400


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_demo(tmp_path_factory.mktemp("demo")) as (port, _):
        yield f"http://127.0.0.1:{port}"


def run(name: str, *arguments: str, url: str = "") -> list[str]:
    """Run an example; return the lines that it printed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        env={**environment(), "OVERTONE_URL": url, "PATH": path, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short_and_says_what_it_shows_and_how_it_is_run(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 80
    header = text.split('"""')[1]
    assert "\nShows: " in header
    assert f"python examples/{path.name}" in header[header.index("\nRun:   ") :]
    page = (ROOT / "README.md").read_text()
    assert f"examples/{path.name}" in page


def test_every_example_is_run() -> None:
    tests = (Path(__file__).read_text(), (ROOT / "tests/clients/test_clients.py").read_text())
    for path in EXAMPLES.glob("*.py"):
        assert any(path.name in text for text in tests)


@pytest.mark.slow
def test_an_adapter_of_pefts_says_the_same_in_the_server(url: str) -> None:
    by_peft, by_overtone, version, verdict = run("migrate_from_peft.py", url=url)
    assert by_peft.removeprefix("PEFT:     ") == by_overtone.removeprefix("Overtone: ") != "''"
    assert version.startswith("migrated@1, ")
    assert verdict == "the same"


@pytest.mark.slow
@pytest.mark.timeout(_LIMIT_S)
def test_a_thousand_adapters_are_asked(url: str) -> None:
    lines = run("thousand_adapters.py", "--adapters", "1000", "--seconds", "10", url=url)
    assert lines[0] == "1000 adapters are published"
    found = re.fullmatch(r"(\d+) answers of (\d+) adapters in 10 s; the most asked:", lines[-2])
    assert found
    assert int(found[1]) > int(found[2]) > 20
    assert lines[-1].startswith("customer-0000 ")


@pytest.mark.slow
@pytest.mark.timeout(_LIMIT_S)
def test_callers_get_what_was_measured_to_be_better(url: str) -> None:
    lines = run("continuous_improvement.py", url=url)
    trained = [line for line in lines if "held-out loss" in line]
    assert [line.rpartition(" ")[2] for line in trained] == ["1", "2", "2"]
    losses = [float(line.partition("loss ")[2].partition(";")[0]) for line in trained]
    assert losses[1] < losses[0]
    assert losses[1] < losses[2]
    said = [line for line in lines if " says" in line]
    assert [re.search(r"version (\d)", line)[1] for line in said] == ["1", "2", "2", "1"]  # type: ignore[index]
    assert said[0] == said[3]


@pytest.mark.slow
@pytest.mark.timeout(_LIMIT_S)
def test_each_customer_gets_labels_of_its_own() -> None:
    lines = run("image_classifiers.py", str(free_port()))
    told = [line.split() for line in lines if "a new picture of" in line]
    assert [words[-3].rstrip(":") for words in told] == ["tomato", "lime", "plain", "striped"]
    assert [words[-2] for words in told] == ["tomato", "lime", "plain", "striped"]
