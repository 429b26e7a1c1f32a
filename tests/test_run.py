"""`./run` says what it can do, and what it cannot; none of it makes an environment."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a copy that lies alone in a folder: there is no environment, and nothing to make one."""
    shutil.copy(ROOT / "run", folder)
    return subprocess.run([folder / "run", *arguments], capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("asked", [(), ("help",), ("-h",), ("--help",)])
def test_help_is_the_whole_head_of_the_file_and_nothing_of_its_code(
    tmp_path: Path, asked: tuple[str, ...]
) -> None:
    done = run(tmp_path, *asked)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    head = (ROOT / "run").read_text().splitlines()[1 : len(lines) + 2]
    assert [f"# {line}".rstrip() for line in lines] == head[:-1]
    assert head[-1] == "set -euo pipefail"
    assert "  ./run demo" in done.stdout
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("lits",), "there is no './run lits'; ./run help"),
        (
            ("test", "fromat"),
            "takes one of: all slow clients coverage format lint types build test docs; or a file",
        ),
        (("bench",), "./run overtone bench --help"),
    ],
)
def test_what_it_does_not_know_ends_with_2_and_says_what_there_is(
    tmp_path: Path, asked: tuple[str, ...], words: str
) -> None:
    done = run(tmp_path, *asked)
    assert done.returncode == 2
    assert words in done.stderr
    assert not done.stdout
    assert not (tmp_path / ".venv").exists()


def test_docs_are_built_with_the_environment_of_the_site(tmp_path: Path) -> None:
    wanted = tmp_path / ".ci" / "site" / "requirements.txt"
    python = tmp_path / ".venv" / "site" / "bin" / "python"
    for file in (wanted, python, tmp_path / ".venv" / "bin" / "python"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('#!/bin/sh\necho "$0" "$@"\n')
        file.chmod(0o755)
    made = subprocess.run(["cksum"], input=wanted.read_bytes(), capture_output=True, check=True)
    (tmp_path / ".venv" / "site" / "stamp").write_bytes(made.stdout)
    done = run(tmp_path, "docs", "--out", "here")
    assert done.stdout.split()[1:] == [str(tmp_path / ".ci" / "site" / "build.py"), "--out", "here"]
    assert "/site/bin/python" in done.stdout
