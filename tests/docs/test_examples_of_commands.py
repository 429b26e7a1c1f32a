"""Every command's help ends with an example that the program itself can read."""

import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from overtone_client._examples import EXAMPLES
from overtone_client.cli import app

from .program import arguments, parse, tree


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files and folders that examples read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "lines.jsonl").touch()
    for name in ("my-adapter", "my-base", "saved"):
        (tmp_path / name).mkdir()


def commands() -> list[str]:
    """Every command that is no group; the benchmarks' options are their own programs'."""
    found = tree()
    groups = {name for name, command in found.items() if hasattr(command, "list_commands")}
    leaves = [name for name in found if name not in groups and not name.startswith("bench ")]
    return [*leaves, "bench"]


def test_every_command_has_an_example_and_no_other_has_one() -> None:
    assert set(EXAMPLES) == set(commands())


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_an_example_is_one_of_the_command_and_can_be_read(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = arguments(EXAMPLES[name])
    assert words[: len(name.split())] == name.split()
    parse(EXAMPLES[name], monkeypatch)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "bench"])
def test_the_help_shows_it(name: str) -> None:
    done = CliRunner().invoke(app, [*name.split(), "--help"])
    assert done.exit_code == 0
    shown = " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.output).split())
    assert f"Example: {EXAMPLES[name]}" in shown


def test_a_wrong_example_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(typer.TyperException, match="No such option"):
        parse("overtone list --like poet", monkeypatch)
