import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bench import command
from overtone_client import _plugins
from overtone_client.cli import app

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point as pyproject.toml has it."""
    value = PROJECT["project"]["entry-points"][_plugins.GROUP]["bench"]
    found = EntryPoints([EntryPoint("bench", value, _plugins.GROUP)])
    monkeypatch.setattr(_plugins, "entry_points", lambda group: found)
    for name in ("OVERTONE_URL", "OVERTONE_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What programs would have been run with."""
    made: list[tuple[str, list[str]]] = []

    def program(name: str) -> Any:
        module = name.rpartition(".")[2]
        return SimpleNamespace(main=lambda: made.append((module, sys.argv[1:])))

    monkeypatch.setattr(command, "import_module", program)
    return made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_the_package_is_installed_with_the_application() -> None:
    assert "bench" in PROJECT["tool"]["setuptools"]["packages"]


def test_every_program_is_listed_and_there_is_a_file_for_it() -> None:
    shown = run("bench", "--help").stdout
    for name, program in command.PROGRAMS.items():
        assert name in shown
        assert (ROOT / "bench" / f"{program.module.replace('.', '/')}.py").exists()


def test_every_program_that_has_a_main_has_a_name() -> None:
    main = "\ndef main("
    found = {
        ".".join(path.relative_to(ROOT / "bench").with_suffix("").parts)
        for path in (ROOT / "bench").glob("*/*.py")
        if main in path.read_text()
    }
    assert found - {"programs.host"} == {one.module for one in command.PROGRAMS.values()}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [(["nothing"], 2, "no program 'nothing'"), (["serving", "--speed", "3"], 2, "--speed")],
)
def test_a_program_runs_by_itself_and_what_is_wrong_is_one_line(
    arguments: list[str], code: int, said: str
) -> None:
    command_line = [sys.executable, "-m", "bench", *arguments]
    done = subprocess.run(command_line, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from overtone_client.cli import app\n"
        "import bench.command, bench.programs.serving\n"
        "heavy = {'torch', 'transformers', 'peft', 'scipy', 'server.settings'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_options_are_handed_on_as_they_are(calls: list[Any]) -> None:
    done = run("bench", "engine", "--rounds", "3", "--only", "decode", "-h")
    assert done.exit_code == 0, done.stderr
    assert calls == [("engine", ["--rounds", "3", "--only", "decode", "-h"])]


def test_the_programs_global_options_reach_serving(calls: list[Any]) -> None:
    run("--url", "http://there:1", "--api-key", "k", "--json", "bench", "serving", "--zipf", "0")
    given = ["--json", "--api-key", "k", "--url", "http://there:1", "--zipf", "0"]
    assert calls == [("serving", given)]


def test_a_program_that_does_not_exist_is_one_line() -> None:
    wrong = run("bench", "nothing")
    assert wrong.exit_code == 2
    assert "nothing" in wrong.stderr
    assert wrong.stderr.count("\n") == 1


def test_a_wrong_option_is_one_line_and_names_it() -> None:
    wrong = run("bench", "serving", "--speed", "3")
    assert wrong.exit_code == 2
    assert "--speed" in wrong.stderr
    assert wrong.stderr.count("\n") == 1


def test_a_server_that_is_not_there_is_one_line() -> None:
    gone = run("bench", "serving", "--url", "http://127.0.0.1:1")
    assert gone.exit_code == 1
    assert gone.stderr.startswith("error: connection_failed: cannot reach http://127.0.0.1:1")


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'peft'", name="peft.tuners")

    monkeypatch.setattr(command, "import_module", missing)
    wrong = run("bench", "peft")
    assert wrong.exit_code == 2
    assert "pip install peft" in wrong.stderr
