"""`overtone tenant`: lists whose files and jobs there are, and hands them over."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from batches_made import spec_on
from jobs_made import spec_for, upload
from registry import connect
from server.cli.tenant_commands import tenant


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with connect("embedded", tmp_path / "data") as registry:
        for name in ("", "9f86d081884c7d65"):
            spec = spec_for(upload(registry.files, created_by=name), created_by=name)
            registry.jobs.create(spec, now=1.0)
            over = spec_on(spec.training_file, created_by=name)
            registry.batches.create(over, 1, now=1.0)
    return tmp_path / "data"


def run(data: Path, *words: str) -> Result:
    return CliRunner().invoke(tenant, [*words, "--data", str(data)])


def test_tenants_are_listed_and_handed_over(data: Path) -> None:
    listed = run(data, "list")
    assert listed.output.split() == [
        *("tenant", "adapters", "files", "jobs", "batches", "keys"),
        *("-", "0", "1", "1", "1", "0"),
        *("9f86d081884c7d65", "0", "1", "1", "1", "0"),
    ]

    assert run(data, "rename", "9f86d081884c7d65", "alice").exit_code == 0
    assert run(data, "rename", "-", "bob").exit_code == 0

    assert json.loads(run(data, "list", "--json").output) == [
        {
            "tenant": name,
            "num_files": 1,
            "num_jobs": 1,
            "num_batches": 1,
            "num_adapters": 0,
            "num_keys": 0,
        }
        for name in ("alice", "bob")
    ]


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["rename", "nobody", "alice"], "nothing belongs to 'nobody'", 1),
        (["rename", "-", "a/b"], "cannot be a tenant's name", 2),
        (["rename", "-", ""], "cannot be a tenant's name", 2),
    ],
)
def test_what_cannot_be_handed_over_is_said_in_one_line(
    data: Path, words: list[str], said: str, code: int
) -> None:
    done = run(data, *words)
    assert done.exit_code == code
    assert said in done.output


def test_what_was_handed_over_is_in_the_audit_log(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERTONE_AUDIT_LOG", str(tmp_path / "audit.jsonl"))
    run(data, "list")
    run(data, "rename", "-", "bob")
    (line,) = (tmp_path / "audit.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert told["action"] == "renameTenant"
    assert told["object"] == {"tenant": "-", "new": "bob", "tenants_moved": 1}
    assert told["user"]
    monkeypatch.setenv("OVERTONE_AUDIT_LOG", str(tmp_path / "none" / "audit.jsonl"))
    refused = run(data, "rename", "bob", "eve")
    assert refused.exit_code == 1
    assert "cannot be written" in refused.output


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    for words in (["list"], ["rename", "a", "b"]):
        done = run(tmp_path / "none", *words)
        assert done.exit_code == 1
        assert "there is no registry" in done.output
    assert not (tmp_path / "none").exists()
