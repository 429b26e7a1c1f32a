"""`overtone gc` and `overtone store`: what they print is so, and they change what they say."""

import json
import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from registry import connect
from s3_server import S3Server
from server.cli.store_commands import gc, store

DAY = 86_400.0
DIGESTS = ["sha256:" + f"{i:x}" * 64 for i in range(3)]

collector = typer.Typer()
collector.command()(gc)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with three blobs that no record names, written long ago."""
    file = tmp_path / "coefficients"
    file.write_bytes(b"coefficients")
    with connect("embedded", tmp_path / "data") as registry:
        registry.ownership.settle()
        for digest in DIGESTS:
            registry.blobs.put(digest, file, b"{}")
            os.utime(registry.blobs.open(digest).file.parent, (1e9, 1e9))
    return tmp_path / "data"


def run(app: typer.Typer, *words: str) -> Result:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})


def blobs(data: Path) -> list[str]:
    return sorted(f"sha256:{p.name}" for p in (data / "blobs").glob("??/[0-9a-f]*"))


def listed_since(data: Path, seconds: float) -> None:
    """Have all that is unknown be listed since then."""
    (data / "blobs" / "unknown.json").write_text(json.dumps(dict.fromkeys(DIGESTS, seconds)))


def test_a_dry_run_lists_and_removes_nothing(data: Path) -> None:
    listed_since(data, 1e9)
    done = run(collector, "--data", str(data), "--dry-run", "--grace", "0")

    assert done.exit_code == 0, done.output
    assert all(digest in done.output for digest in DIGESTS)
    assert "3 x adapter: 42 bytes" in done.output
    assert "Nothing was removed" in done.output
    assert blobs(data) == DIGESTS


def test_what_was_listed_only_now_waits_for_the_grace(data: Path) -> None:
    done = run(collector, "--data", str(data), "--json")

    (found, *_) = json.loads(done.output)["unknown"]
    assert (found["is_due"], found["is_removed"], found["kind"]) == (False, False, "adapter")
    assert blobs(data) == DIGESTS


def test_what_was_listed_for_the_grace_goes(data: Path) -> None:
    listed_since(data, 1e9)
    done = run(collector, "--data", str(data), "--json")

    assert [each["is_removed"] for each in json.loads(done.output)["unknown"]] == [True] * 3
    assert blobs(data) == []
    again = run(collector, "--data", str(data))
    assert "named by a record" in again.output


def test_a_grace_of_no_days_removes_what_is_old_enough(data: Path) -> None:
    assert "3 removed" in run(collector, "--data", str(data), "--grace", "0").output
    assert blobs(data) == []


def test_another_registry_collects_nothing(data: Path, tmp_path: Path) -> None:
    words = ["--data", str(tmp_path / "other"), "--store", str(data / "blobs"), "--grace", "0"]
    done = run(collector, *words)

    assert done.exit_code == 1
    assert "overtone store adopt" in done.output
    assert blobs(data) == DIGESTS


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    for app, words in ((collector, []), (store, ["show"]), (store, ["adopt", "--yes"])):
        done = run(app, *words, "--data", str(tmp_path / "none"))
        assert done.exit_code == 1
        assert f"there is no store at {tmp_path / 'none' / 'blobs'}" in done.output
    assert not (tmp_path / "none").exists()


def test_show_says_whose_the_store_is(data: Path, tmp_path: Path) -> None:
    own = run(store, "show", "--data", str(data), "--json")
    values = json.loads(own.output)
    assert own.exit_code == 0
    assert values["belongs to registry"] == values["registry"]
    assert (values["adapters in the store"], values["fault"]) == (3, None)

    words = ["--data", str(tmp_path / "other"), "--store", str(data / "blobs")]
    other = run(store, "show", *words)
    assert other.exit_code == 1
    assert "the store belongs to the registry" in other.output
    assert "other" in other.output or "empty" in other.output


def test_adopting_needs_a_yes_and_says_what_it_does(data: Path, tmp_path: Path) -> None:
    words = ["--data", str(tmp_path / "other"), "--store", str(data / "blobs")]
    asked = run(store, "adopt", *words)
    assert asked.exit_code == 1
    assert "The store holds 3 adapters" in asked.output
    assert "add --yes" in asked.output
    assert json.loads(run(store, "show", *words, "--json").output)["fault"]

    done = run(store, "adopt", *words, "--yes")

    assert done.exit_code == 0, done.output
    assert json.loads(run(store, "show", *words, "--json").output)["fault"] is None
    assert "already" in run(store, "adopt", *words, "--yes").output
    assert "3 x adapter" in run(collector, *words).output
    assert blobs(data) == DIGESTS


def test_a_wrong_address_is_one_line(data: Path) -> None:
    for url in ("nonsense", "redis://127.0.0.1:1/0"):
        done = run(store, "show", "--data", str(data), "--registry", url)
        assert done.exit_code == 1
        assert done.output.startswith("error: ")


def test_a_bucket_that_cannot_be_used_is_one_line(
    data: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["show", "--data", str(data), "--store"]
    asked = {
        "gs://bucket-any": "is neither a folder nor s3://",
        "s3://bucket-none": "there is no such bucket",
    }
    for place, said in asked.items():
        done = run(store, *words, place)
        assert done.exit_code == 1
        assert done.output.startswith("error: ")
        assert said in done.output
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "nothing listens at the endpoint" in run(store, *words, "s3://bucket-none").output
