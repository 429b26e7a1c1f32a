"""The real program before it serves: a base that is none, and the doctor."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = str(Path(sys.executable).with_name("overtone"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=100)


def test_a_base_that_is_not_there_ends_the_start_and_is_named(tmp_path: Path) -> None:
    wrong = str(tmp_path / "nothing-here")
    done = run("serve", "--base", wrong, "--port", "0", "--data", str(tmp_path / "data"))
    assert done.returncode == 1
    assert f"base {wrong!r} cannot be loaded" in done.stderr
    assert "Give a folder" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.timeout(120)
def test_the_doctor_finds_this_machine_fit(tmp_path: Path) -> None:
    done = run("doctor", "--data", str(tmp_path), "--json")
    findings = {f["question"]: f for f in json.loads(done.stdout)}
    assert {"Python", "torch", "registry", "transforms"} <= set(findings)
    assert all(finding["is_good"] for finding in findings.values()), findings
    assert done.returncode == 0


def test_the_doctor_says_what_to_do_about_a_folder_it_cannot_use(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("no folder")
    done = run("doctor", "--data", str(taken), "--json")
    bad = [f for f in json.loads(done.stdout) if not f["is_good"]]
    assert len(bad) == 1
    assert bad[0]["advice"]
    assert done.returncode == 1
