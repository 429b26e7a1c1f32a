"""`overtone serve` has a flag for every setting, and says what is wrong with one."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from server.cli.commands import serve
from server.process.worker_process import _command, _variables
from server.settings import Settings, read_settings

program = typer.Typer()
program.command()(serve)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(program, arguments, env={"COLUMNS": "200"})


def effective(*arguments: str) -> dict[str, Any]:
    answer = run("--base", "x", *arguments, "--check")
    assert answer.exit_code == 0, answer.output
    told: dict[str, Any] = json.loads(answer.output)
    return told


def test_every_setting_but_the_secrets_has_a_flag_and_a_word_of_help() -> None:
    text = run("--help").output
    for name, field in Settings.model_fields.items():
        assert field.description, name
        is_flag = name not in ("api_keys", "registry_password")
        assert (f"--{name.replace('_', '-')} " in text) == is_flag, name


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


URL = "redis://me:geheim@host:6379/3"


def test_a_password_is_shown_neither_by_check_nor_by_the_settings_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OVERTONE_REGISTRY", URL)
    answer = run("--base", "x", "--check")
    assert json.loads(answer.output)["registry"] == "redis://me:***@host:6379/3"
    settings = read_settings(base="x")
    assert settings.registry_url == URL
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "geheim" not in shown


def test_a_password_in_a_flag_is_warned_of_and_one_in_the_environment_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    warned = run("--base", "x", "--registry", URL, "--check")
    assert "warning: --registry holds a password" in warned.stderr
    assert "geheim" not in warned.output
    monkeypatch.setenv("OVERTONE_REGISTRY", URL)
    assert run("--base", "x", "--check").stderr == ""


def test_a_password_may_be_in_a_variable_or_a_file_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("geheim\n")
    monkeypatch.setenv("OVERTONE_REGISTRY", "redis://me@host:6379/3")
    told = effective("--registry-password-file", str(file))
    assert (told["registry"], told["registry_password"]) == ("redis://me@host:6379/3", None)
    assert read_settings(base="x", registry_password_file=str(file)).registry_url == URL
    monkeypatch.setenv("OVERTONE_REGISTRY_PASSWORD", "geheim")
    assert read_settings(base="x").registry_url == URL
    assert effective()["registry_password"] == "**********"
    monkeypatch.setenv("OVERTONE_REGISTRY", URL)
    answer = run("--base", "x", "--check")
    assert answer.exit_code == 2
    assert "--registry, OVERTONE_REGISTRY): the registry's URL holds a password" in answer.output
    assert "geheim" not in answer.output


def test_a_worker_beside_the_server_gets_the_password_without_an_argument(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OVERTONE_REGISTRY_PASSWORD", "geheim")
    settings = read_settings(base="x", registry="redis://host")
    given = _variables(settings)
    assert given["OVERTONE_REGISTRY"] == "redis://host"
    assert given["OVERTONE_REGISTRY_PASSWORD"] == "geheim"
    assert "geheim" not in " ".join(_command())


def test_a_path_at_home_is_one_however_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shells leave `--data=~/x` as it is, and so do files of variables."""
    monkeypatch.setenv("HOME", "/home/me")
    settings = read_settings(base="~/base", data="~/data", store="~/store")
    found = (settings.base, str(settings.data), str(settings.store))
    assert found == ("/home/me/base", "/home/me/data", "/home/me/store")
