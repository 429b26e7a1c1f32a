"""`overtone serve` has a flag for every setting, and says what is wrong with one."""

import json
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from server.commands import serve
from server.settings import Settings

program = typer.Typer()
program.command()(serve)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(program, arguments, env={"COLUMNS": "200"})


def effective(*arguments: str) -> dict[str, Any]:
    answer = run("--base", "x", *arguments, "--check")
    assert answer.exit_code == 0, answer.output
    told: dict[str, Any] = json.loads(answer.output)
    return told


def test_every_setting_but_the_keys_has_a_flag_and_a_word_of_help() -> None:
    text = run("--help").output
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert (f"--{name.replace('_', '-')}" in text) == (name != "api_keys"), name


def test_what_is_not_given_has_its_default() -> None:
    expected = Settings(base="x").model_dump(mode="json")
    assert effective() == expected


def test_flags_reach_their_settings_and_win_over_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OVERTONE_MAX_RUNNING", "3")
    assert effective()["max_running"] == 3
    told = effective("--max-running", "7", "--no-prefix-cache", "--mode", "merged")
    assert (told["max_running"], told["prefix_cache"], told["mode"]) == (7, False, "merged")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--base", "x", "--max-running", "many"), "--max-running, OVERTONE_MAX_RUNNING"),
        (("--base", "x", "--mode", "fast"), "--mode, OVERTONE_MODE"),
        ((), "--base, OVERTONE_BASE"),
    ],
)
def test_a_bad_setting_is_named_and_stops_the_start(arguments: tuple[str, ...], words: str) -> None:
    answer = run(*arguments, "--check")
    assert answer.exit_code == 2
    assert words in answer.output
