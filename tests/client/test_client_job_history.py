"""A job's events, checkpoints and losses at the command line."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import Result

from overtone_client import Client
from overtone_client._job_history import _count, _sampled
from overtone_client._loss_chart import drawn

from .fake_overtone import State

Run = Callable[..., Result]


def test_a_jobs_history_is_shown(run: Run, state: State, data: Path) -> None:
    run("train", "--data", data, "--name", "poet")
    (id_,) = state.training.jobs
    events = run("job", id_, "--events").stdout.splitlines()
    assert [line.split()[-1] for line in events] == ["EVENT", "1", "2", "3"]
    checkpoints = run("job", id_, "--checkpoints").stdout
    heads, newest, *_ = checkpoints.splitlines()
    assert heads.split() == ["CHECKPOINT", "STEP", "CREATED", "SAMPLES"]
    assert newest.split()[-1] == "2"
    assert "step 5, of the validation_file" in checkpoints
    assert 'answer    "7\\n7" (cut at 48 tokens)' in checkpoints
    assert "\x1b" not in checkpoints
    (found, _) = json.loads(run("job", id_, "--checkpoints", "--json").stdout)["data"]
    assert found["overtone"]["samples"][0]["expected"] == "6"
    curve = json.loads(run("job", id_, "--curve", "--json").stdout)["data"]
    assert {"step": 3, "train_loss": 1 / 3} in curve
    assert "loss" in run("job", id_, "--curve").stdout
    assert "give one of" in run("job", id_, "--curve", "--events").stderr


@pytest.mark.parametrize(
    ("why", "told"),
    [
        ("time", "none: they have a tenth of the job's time"),
        ("failed", "none: --events says why"),
        ("no_prompts", "none: no example has a prompt"),
        ("off", "off"),
        ("not_made", "not made"),
        ("later\x1b[2J", "later[2J"),
        (None, ""),
    ],
)
def test_it_is_said_why_a_checkpoint_has_no_samples(
    client: Client, why: str | None, told: str
) -> None:
    job = client.training.create("tiny", "file-1", name="poet")
    newest = next(client.training.checkpoints(job.id))
    assert _count(newest) == "2"
    assert _count(replace(newest, samples=[], samples_left_out=why)) == told


def test_the_source_of_samples_does_not_steer_the_terminal(client: Client) -> None:
    job = client.training.create("tiny", "file-1", name="poet")
    newest = next(client.training.checkpoints(job.id))
    title, *_ = _sampled(replace(newest, samples_source="evil\x1b[2J"))
    assert title.plain == "\nstep 5, of the evil[2J"


@pytest.mark.parametrize("history", ["--events", "--checkpoints", "--curve"])
@pytest.mark.parametrize("option", [["--follow"], ["--plot", "curve.png"]])
def test_what_a_history_does_not_take_is_refused(
    run: Run, state: State, tmp_path: Path, history: str, option: list[str]
) -> None:
    words = [tmp_path / word if word.endswith(".png") else word for word in option]
    done = run("job", "ftjob-1", history, *words)
    assert done.exit_code == 2
    assert f"{history} and {option[0]}" in done.stderr
    assert state.calls == []
    assert list(tmp_path.iterdir()) == []


def test_losses_are_drawn_over_the_whole_job() -> None:
    train = [(step, 4.0 - step / 50) for step in range(1, 101)]
    picture = drawn(train, [(50, 3.1), (100, 2.1)], 200, width=80).plain
    assert max(len(line) for line in picture.splitlines()) <= 80
    assert "o held out: 2.1000" in picture
    assert re.search(r"0 .* 200 *$", picture, re.MULTILINE)
    assert sum("⠉" <= mark <= "⣿" for mark in picture) > 20
    assert drawn(train[:1], [], 200, width=80).plain == ""
    assert drawn(train, [], 0, width=20).plain == ""
