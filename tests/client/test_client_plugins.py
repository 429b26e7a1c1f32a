import json
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from overtone_client import _plugins
from overtone_client._plugins import APPLICATION, hoisted
from overtone_client.cli import app

SOURCE = '''
from typing import Annotated
import typer
from overtone_client import NotFound
def serve(ctx: typer.Context, base: Annotated[str, typer.Option(help="The base.")],
          json: bool = False, url: str = "own"):
    """Serve it, described at length."""
    typer.echo(f"{base} {json} {url} {ctx.obj.url}")
def doctor() -> int:
    """Look."""
    return 3
def convert(ctx: typer.Context):
    """Convert."""
    raise NotFound("no such file")
'''


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application of five commands, one of them broken, one renamed away."""
    (tmp_path / "heavy_application.py").write_text(SOURCE)
    (tmp_path / "broken_application.py").write_text("raise OSError('libcuda is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "heavy_application", raising=False)
    values = {
        "serve": "heavy_application:serve",
        "doctor": "heavy_application:doctor",
        "convert": "heavy_application:convert",
        "bench": "broken_application:bench",
        "extra": "heavy_application:renamed",
    }
    found = EntryPoints(EntryPoint(name, value, _plugins.GROUP) for name, value in values.items())
    monkeypatch.setattr(_plugins, "entry_points", lambda group: found)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_command_of_the_application_runs_with_its_own_options() -> None:
    done = run("--url", "http://ours:1", "serve", "--base", "tiny", "--json", "--url", "theirs")
    assert done.stdout == "tiny True theirs http://ours:1\n"
    assert done.exit_code == 0


def test_nothing_of_the_application_is_imported_for_the_list_of_commands() -> None:
    listing = run("--help").stdout
    for name, line in APPLICATION.items():
        assert name in listing
        assert line in listing
    assert "Added by an installed package." in listing
    assert "heavy_application" not in sys.modules


def test_help_of_a_command_is_its_own() -> None:
    text = run("serve", "--help").stdout
    assert "described at length" in text
    assert "The base." in text


def test_usage_error_of_the_application_is_one_line() -> None:
    wrong = run("serve")
    assert wrong.exit_code == 2
    assert wrong.stderr == "error: usage: Missing option '--base'. (see `root serve --help`)\n"


def test_returned_number_is_the_exit_code() -> None:
    assert run("doctor").exit_code == 3


def test_error_of_the_client_in_the_application_is_one_line() -> None:
    failed = run("convert")
    assert failed.exit_code == 1
    assert failed.stderr.startswith("error: not_found: no such file")


@pytest.mark.parametrize("arguments", [["worker"], ["worker", "--help"]])
def test_missing_command_says_how_to_install_it(arguments: list[str]) -> None:
    missing = run(*arguments)
    assert missing.exit_code == 2
    assert "pip install --upgrade overtone" in missing.stderr
    assert missing.stderr.count("\n") == 1


def test_missing_command_as_json() -> None:
    assert json.loads(run("--json", "worker").stderr)["error"]["code"] == "usage"


@pytest.mark.parametrize(
    ("name", "reason"), [("bench", "libcuda is missing"), ("extra", "renamed")]
)
def test_command_that_cannot_be_imported_says_why_when_called(name: str, reason: str) -> None:
    broken = run(name)
    assert broken.exit_code == 2
    assert reason in broken.stderr
    assert "Traceback" not in broken.stderr


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["list", "--json"], ["--json", "list"]),
        (["list", "--url", "x", "--limit", "2"], ["--url", "x", "list", "--limit", "2"]),
        (["--json", "list", "--url=x"], ["--json", "--url=x", "list"]),
        (["list", "--", "--json"], ["list", "--", "--json"]),
        (["list", "--api-key"], ["--api-key"]),
        (["serve", "--json"], ["serve", "--json"]),
        (["--json", "serve", "--url", "x"], ["--json", "serve", "--url", "x"]),
        ([], []),
    ],
)
def test_global_options_move_before_our_commands_only(given: Any, expected: Any) -> None:
    assert hoisted(given, {"list"}) == expected
