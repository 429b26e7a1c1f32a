"""What a shell is offered behind the program's words, and the scripts that it installs."""

import os
import subprocess
import sys

import pytest

from .fake_overtone import State

SCRIPT = "from overtone_client.cli import main; main()"


def offered(words: str, url: str) -> list[str]:
    """What bash would be offered for the last of the words."""
    environment = {
        "_OVERTONE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "OVERTONE_URL": url,
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_are_offered(url: str) -> None:
    assert offered("overtone rol", url) == ["rollback"]
    assert offered("overtone keys r", url) == ["rotate", "revoke"]


def test_names_of_adapters_come_from_the_server(url: str, state: State) -> None:
    for name in ("poet", "poetry", "critic"):
        state.add(name)
    assert offered("overtone show poe", url) == ["poet", "poetry"]
    assert offered("overtone chat t", url) == ["tiny"]
    assert offered("overtone compare critic p", url) == ["poet", "poetry"]
    assert offered(f"overtone --url {url} show c", "http://127.0.0.1:9") == ["critic"]


def test_ids_of_jobs_come_from_the_server(url: str, state: State) -> None:
    job = state.training.add_job({"model": "tiny"})
    assert offered("overtone job ftj", url) == [job["id"]]


def test_a_server_that_is_not_there_offers_nothing() -> None:
    assert offered("overtone show x", "http://127.0.0.1:9") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_for_shells_are_shown(shell: str, url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, "--show-completion", shell],
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "_OVERTONE_COMPLETE" in done.stdout
