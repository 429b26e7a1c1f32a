"""At a terminal of 80 columns: tables of ordinary data have a line for each row."""

from collections.abc import Callable
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from overtone_client import Comparison, _batch_commands, _job_report, _key_commands, _session
from overtone_client._compare_command import shown
from overtone_client._comparisons import _to_comparison
from overtone_client._examples import EXAMPLES
from overtone_client.cli import app

from .fake_overtone import State

WIDTH = 80


@pytest.fixture
def lines(url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Runs the program at such a terminal; returns what it printed, line by line."""
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    for module in (_session, _batch_commands, _job_report, _key_commands):
        monkeypatch.setattr(module, "is_terminal", lambda: True)

    def run(*arguments: str) -> list[str]:
        done = CliRunner().invoke(app, ["--url", url, *arguments])
        assert done.exit_code == 0, done.output
        return done.stdout.splitlines()

    return run


def check(lines: list[str], num_rows: int) -> None:
    assert len(lines) == num_rows + 1
    assert max(map(len, lines)) <= WIDTH


def test_adapters(lines: Callable[..., list[str]], state: State) -> None:
    for name in ("support-tickets-de", "acme/support-fr"):
        state.add(name, method="waveletft", size_bytes=12_345)
        state.aliases[name] |= {"prod": 1, "canary": 1}
    check(lines("list"), 2)
    check(lines("models"), 3)


def test_jobs(lines: Callable[..., list[str]], state: State) -> None:
    for number, name in enumerate(("support-tickets", "poet")):
        job = state.training.add_job({"model": "tiny", "adapter": {"name": name}})
        job["id"] = f"ftjob-{number}{'0' * 23}"
        job["overtone"]["progress"] = {"step": 1200, "num_steps": 1200}
        job |= {"status": "validating_files"}
    check(lines("jobs"), 2)


def test_files(lines: Callable[..., list[str]], state: State) -> None:
    state.training.add_file("support-tickets.jsonl", b"x" * 10_000)
    check(lines("files", "list"), 1)


def test_workers(lines: Callable[..., list[str]], state: State) -> None:
    known = {"id": "worker-7f9c6d5b-x2x4v:17", "model": "SmolLM2-135M", "device": "cuda:0"}
    state.training.workers = [{**known, "is_busy": True, "started_at": 1}]
    assert len([line for line in lines("workers") if "worker-7f9" in line]) == 1


def test_keys(lines: Callable[..., list[str]], state: State) -> None:
    words = ("--scopes", "infer,upload", "--label", "ci", "--expires", "30d")
    for tenant in ("alice", "department"):
        lines("keys", "create", "--tenant", tenant, *words)
    check(lines("keys", "list"), 2)


def test_batches(lines: Callable[..., list[str]], state: State, tmp_path: Any) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text("{}\n")
    lines("batch", "create", str(file))
    check(lines("batch", "list"), 1)


def test_examples_fit_into_a_line() -> None:
    assert [text for text in EXAMPLES.values() if len(f" Example: {text}") > WIDTH] == []


def test_the_list_of_commands_has_a_line_for_each(lines: Callable[..., list[str]]) -> None:
    group = typer.main.get_command(app)
    context = group.context_class(group)
    listed = [line.split()[1] for line in lines("--help") if line.startswith("│ ")]
    assert set(group.list_commands(context)) <= set(listed)  # type: ignore[attr-defined]
    _, _, panels = "\n".join(lines("--help")).partition("Ask")
    rows = [line for line in panels.splitlines() if line.startswith("│")]
    assert all(len(line.split()) > 2 and line[2] != " " for line in rows)


def compared(*texts: str) -> Comparison:
    answers = [
        {
            "index": number,
            "model": f"m{number}",
            "answer": {
                "object": "text_completion",
                "model": f"m{number}",
                "choices": [{"index": 0, "text": text, "finish_reason": "stop"}],
            },
        }
        for number, text in enumerate(texts)
    ]
    return _to_comparison({"id": "cmpr-1", "created": 1, "data": answers})


def printed(found: Comparison, width: int | None) -> list[str]:
    console = Console(width=width or 1000)
    with console.capture() as capture:
        console.print(shown(found, width))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_answers_stand_side_by_side_where_there_is_room() -> None:
    two = compared("word " * 12, "other " * 3)
    beside = printed(two, WIDTH)
    assert beside[0].split() == ["m0", "m1"]
    assert beside[1].split()[-1] == "other"
    assert max(map(len, beside)) <= WIDTH
    for stacked in (printed(two, 60), printed(two, None), printed(compared(*"abc"), WIDTH)):
        assert stacked[0] == "m0"
        assert "m1" in stacked


def test_a_name_that_is_not_there_brings_similar_ones(url: str, state: State) -> None:
    for name in ("legalese", "shouting"):
        state.add(name)

    def said(*arguments: str) -> str:
        return CliRunner().invoke(app, ["--url", url, *arguments]).stderr

    assert "did you mean 'legalese'?" in said("show", "legalise")
    assert "did you mean" not in said("show", "xyz")
    assert "`overtone show shouting` lists" in said("models", "shouting@9")
