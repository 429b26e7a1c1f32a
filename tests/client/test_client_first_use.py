"""What a person meets who uses the program for the first time, and makes mistakes."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from overtone_client._plugins import hoisted
from overtone_client.cli import COMMANDS, app

from .fake_overtone import State

Run = Callable[..., Result]


@pytest.mark.parametrize("option", ["--url", "--api-key", "--acting-for"])
@pytest.mark.parametrize("words", [["keys", "list"], ["delete", "demo", "--yes"], ["list"]])
def test_an_option_without_its_value_runs_no_other_command(
    url: str, state: State, words: list[str], option: str
) -> None:
    state.add("demo")
    done = CliRunner().invoke(app, [*words, option], env={"OVERTONE_URL": url})
    assert done.exit_code == 2
    assert f"Option '{option}' requires an argument" in done.stderr
    assert state.calls == []


def test_options_of_the_application_stay_where_they_are() -> None:
    assert hoisted(["serve", "--url"], {"list"}) == ["serve", "--url"]
    assert hoisted(["list", "--api-key"], {"list"}) == ["--api-key"]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["job", "", "--cancel"], "job"),
        (["job", "ftj", "--cancel"], "job"),
        (["job", "ftjob-", "--cancel"], "job"),
        (["batch", "cancel", "batch_"], "batch"),
        (["keys", "revoke", ""], "key"),
        (["files", "delete", "file-"], "file"),
    ],
)
def test_an_id_that_says_nothing_means_nothing(
    run: Run, state: State, words: list[str], what: str
) -> None:
    state.training.add_job({"model": "tiny"})
    state.training.add_file("lines.jsonl", b"{}")
    state.batches.add(
        {"endpoint": "/v1/completions", "input_file_id": "f", "completion_window": "24h"}
    )
    done = run(*words)
    assert done.exit_code == 2
    assert f"is how every {what}'s id begins" in done.stderr
    assert state.calls == []


def test_a_file_is_named_by_how_its_id_begins(run: Run, state: State) -> None:
    file = state.training.add_file("lines.jsonl", b"{}")["id"]
    assert file in run("files", "show", "file-0").stdout
    assert file in run("files", "show", file.removeprefix("file-")[:5]).stdout
    state.calls.clear()
    assert run("files", "show", file).exit_code == 0
    assert state.calls == [f"GET /v1/files/{file}"]
    assert "`overtone files list` lists them" in run("files", "show", "file-9").stderr


@pytest.mark.parametrize(
    ("words", "step"),
    [
        (["files", "show", "file-" + "f" * 24], "`overtone files list` lists them"),
        (["batch", "show", "batch_" + "f" * 24], "`overtone batch list` lists them"),
        (["job", "ftjob-" + "f" * 24], "`overtone jobs` lists them"),
    ],
)
def test_what_is_not_there_is_looked_for_in_its_own_list(
    run: Run, words: list[str], step: str
) -> None:
    done = run(*words)
    assert done.exit_code == 1
    assert step in done.stderr


def test_results_of_a_batch_without_any_are_an_error_that_says_why(
    run: Run, state: State, tmp_path: Path
) -> None:
    body = {"endpoint": "/v1/completions", "input_file_id": "f", "completion_window": "24h"}
    fault = {"line": 1, "code": "invalid", "message": "names no model"}
    failed = state.batches.add(body, status="failed", errors={"data": [fault]})["id"]
    output = tmp_path / "answers.jsonl"
    for more in ([], ["--json"], ["--output", output]):
        done = run("batch", "results", failed, *more)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "is failed and has no results: line 1: names no model" in done.stderr
    assert not output.exists()


def test_a_list_that_is_filtered_does_not_say_that_there_is_nothing(run: Run, state: State) -> None:
    state.add("demo")
    for words in (["list", "--prefix", "zz"], ["list", "--method", "lora"]):
        assert run(*words).stdout == "There are no such adapters; `overtone list` shows all.\n"
    assert run("keys", "list", "--tenant", "zz").stdout == "There are no keys of zz.\n"


@pytest.mark.parametrize(
    "words", [["chat", "demo"], ["classify", "demo"], ["embed", "demo"], ["rerank", "demo", "q"]]
)
def test_no_text_at_all_is_not_sent(run: Run, state: State, words: list[str]) -> None:
    done = run(*words, text="\n")
    assert done.exit_code == 2
    assert "there is no text" in done.stderr
    assert state.calls == []


def test_a_file_that_cannot_be_read_is_named_once(run: Run, tmp_path: Path) -> None:
    missing = tmp_path / "nosuch"
    for option in ("--tools", "--json-schema", "--grammar"):
        done = run("chat", "demo", "-m", "hi", option, missing)
        assert done.exit_code == 2
        told = f"error: invalid_argument: cannot read {missing}: No such file or directory\n"
        assert done.stderr == told
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    done = run("chat", "demo", "-m", "hi", "--tools", binary)
    assert f"cannot read {binary}: it is not UTF-8" in done.stderr


def test_https_to_a_server_without_it_says_so(url: str) -> None:
    done = CliRunner().invoke(app, ["--url", url.replace("http:", "https:"), "list"])
    assert done.exit_code == 1
    assert "it does not speak TLS: an http:// URL may do" in done.stderr


def commands() -> Iterator[tuple[str, Callable[..., object]]]:
    for group in COMMANDS.values():
        for name, command in group.items():
            if isinstance(command, typer.Typer):
                for one in command.registered_commands:
                    assert one.callback
                    yield f"{name} {one.name or one.callback.__name__}", one.callback
            else:
                yield name, command


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_the_help_has_no_line_breaks_in_the_middle(
    name: str, command: Callable[..., object]
) -> None:
    """Only in the first paragraph are those of the source taken out."""
    told = inspect.getdoc(command)
    assert told, name
    assert not [one for one in told.split("\n\n")[1:] if "\n" in one]


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_option_has_words_and_none_is_broken(
    name: str, command: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    app_of_one = typer.Typer()
    app_of_one.command()(command)
    for parameter in typer.main.get_command(app_of_one).params:
        if parameter.name not in ("install_completion", "show_completion"):
            assert getattr(parameter, "help", None), (name, parameter.name)
            assert len(parameter.metavar or "") <= 20, (name, parameter.name)
