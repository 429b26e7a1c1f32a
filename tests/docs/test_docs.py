"""The documentation says what the code does: commands run, tables are complete."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters_core.table import registered
from server.cli.commands import serve
from server.settings import Settings

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
COLUMNS = 100
PROGRAM = Path(sys.executable).with_name("overtone")
_START_S = 90


@pytest.fixture(scope="module")
def readme_commands() -> list[str]:
    return [block.strip() for block in BLOCK.findall((ROOT / "README.md").read_text())]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str]]:
    """The demo, started as README says, on a free port with its data in a folder of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = tmp_path_factory.mktemp("demo")
    command = [str(PROGRAM), "demo", "--port", str(port)]
    log = data / "log"
    with log.open("w") as out:
        process = subprocess.Popen([*command, "--data", str(data)], stdout=out, stderr=out)
        try:
            deadline = time.monotonic() + _START_S
            while "Overtone is ready" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield port, log.read_text()
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(60)
    assert code == 130, log.read_text()  # ended by Ctrl-C, as shells count


def run_here(command: str, port: int) -> str:
    """Run a documented command against the demo's own port, and return what it printed."""
    command = command.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    command = command.replace("./run overtone", shlex.quote(str(PROGRAM)))
    env = os.environ | {"OVERTONE_URL": f"http://127.0.0.1:{port}", "COLUMNS": "120"}
    done = subprocess.run(
        ["bash", "-euc", command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_readme_begins_with_the_demo(readme_commands: list[str]) -> None:
    assert readme_commands[0] == "./run demo"


def test_every_other_command_of_readme_works_while_the_demo_runs(
    readme_commands: list[str], demo: tuple[int, str]
) -> None:
    outputs = [run_here(command, demo[0]) for command in readme_commands[1:]]
    assert '"shouting"' in outputs[0]
    assert '"method"' not in outputs[1]
    assert '"adapter":"shouting"' in outputs[1]
    assert "legalese" in outputs[2]


def test_the_demos_own_examples_work(demo: tuple[int, str]) -> None:
    port, log = demo
    shown = log.split("Three things to try", 1)[1]
    curl = re.search(r"(curl .*?\n.*?'$)", shown, re.MULTILINE | re.DOTALL)
    program = re.search(r"^ *(\./run overtone .*)$", shown, re.MULTILINE)
    page = re.search(r"(http://\S+) in a browser", shown)
    assert curl
    assert program
    assert page
    assert '"digest":"sha256:' in run_here(curl.group(1), port)
    assert run_here(program.group(1), port).strip()
    assert "<html" in run_here(f"curl -sf {page.group(1)}", port).lower()


def test_the_demo_shows_that_its_adapters_beat_the_base(demo: tuple[int, str]) -> None:
    found = re.findall(r"adapter (\w+) +held-out loss ([\d.]+), the base alone ([\d.]+)", demo[1])
    assert {name for name, *_ in found} == {"legalese", "shouting"}
    assert all(float(loss) < 0.95 * float(base) for _, loss, base in found)


def test_every_method_has_a_row() -> None:
    page = (ROOT / "docs" / "methods.md").read_text()
    for name, method in registered().items():
        assert f"| `{name}` | {method.peft_type} |" in page
        assert registered()[method.name] is method


def test_every_flag_of_serve_is_a_setting() -> None:
    flags = set(serve.__annotations__) - {"return", "check"}
    assert flags <= set(Settings.model_fields)


def test_paths_that_the_documents_name_exist() -> None:
    for page in PAGES:
        rooms = "adapters_core|server|registry|trainer|tests|bench|docs"
        named = re.findall(rf"`(?:\./run test )?((?:{rooms})/[\w/.]*\w/?)", page.read_text())
        for path in named:
            assert "yours" in path or (ROOT / path).exists(), f"{page.name} names {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_text_is_wrapped_at_one_width(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in text.splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > COLUMNS] == []
