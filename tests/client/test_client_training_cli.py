"""train, jobs, job and reproduce at the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from overtone_client import Client, ConnectionFailed, Unavailable, _job_report, _session
from overtone_client._follow import _Screen
from overtone_client._job_report import shortened

from .fake_overtone import State
from .fake_training import PNG

Run = Callable[..., Result]


def test_train_uploads_files_and_says_how_to_follow(run: Run, state: State, data: Path) -> None:
    done = run("train", "--data", data, "--name", "poet", "--method", "loca", "--epochs", 2)
    assert done.exit_code == 0, done.output
    assert "is queued; `overtone job ftjob-" in done.stdout
    (body,) = state.training.bodies
    assert (body["model"], body["training_file"]) == ("tiny", next(iter(state.training.files)))
    assert body["adapter"] == {"name": "poet", "method": "loca"}
    assert body["method"]["supervised"]["hyperparameters"] == {"n_epochs": 2}


def test_any_hyperparameter_and_field_can_be_set(run: Run, state: State, data: Path) -> None:
    words = ["--set", "learning_rate=0.1", "--set", "schedule=cosine", "--config", "n_frequency=9"]
    words += ["--alias", "prod", "--better-than", "base", "--validation", data, "--seed", 3]
    assert run("train", "--data", data, "--name", "poet", *words).exit_code == 0
    (body,) = state.training.bodies
    hyper = body["method"]["supervised"]["hyperparameters"]
    assert hyper == {"learning_rate": 0.1, "schedule": "cosine"}
    assert body["adapter"]["config"] == {"n_frequency": 9}
    assert body["adapter"]["publish_if"] == {"metric": "eval_loss", "better_than": "base"}
    assert (body["validation_file"], body["seed"]) == (list(state.training.files)[1], 3)


def test_following_shows_every_word_and_the_end(run: Run, data: Path) -> None:
    done = run("train", "--data", data, "--name", "poet", "--follow")
    assert done.exit_code == 0, done.output
    assert "info  word 1" in done.stderr
    assert "info  word 9" in done.stderr
    assert "poet@1" in done.stdout
    assert "eval_loss=1.25" in done.stdout
    assert "eval_loss=2.5" in done.stdout


def worker(base: str = "tiny") -> dict[str, Any]:
    known = {"object": "worker", "id": "host:1", "model": base, "device": "cpu"}
    return {**known, "is_busy": True, "started_at": 1_700_000_000}


def test_following_a_job_that_no_worker_takes_says_so_and_how_to_start_one(
    run: Run, state: State, data: Path
) -> None:
    words = ("train", "--data", data, "--name", "poet", "--follow")
    alone = run(*words)
    base = next(iter(state.training.jobs.values()))["model"]
    assert f"warn  no worker of {base} is running: the job waits for one" in alone.stderr
    assert "overtone worker --base BASE" in alone.stderr
    assert "--with-worker" in alone.stderr
    state.training.workers = [worker("another")]
    assert "is running, only of another: the job waits" in run(*words).stderr
    state.training.workers = [worker(base)]
    assert "no worker" not in run(*words).stderr


def test_workers_are_a_table_or_one_document(run: Run, state: State) -> None:
    assert "There are no workers" in run("workers").stdout
    state.training.workers = [worker()]
    shown = run("workers").stdout
    assert all(word in shown for word in ("host:1", "tiny", "cpu", "busy"))
    assert json.loads(run("workers", "--json").stdout)["data"] == [worker()]


def test_a_stream_that_breaks_is_taken_up_where_it_broke(
    run: Run, state: State, data: Path
) -> None:
    state.training.breaks = 2
    done = run("train", "--data", data, "--name", "poet", "--follow")
    assert done.exit_code == 0, done.output
    assert "trying again" in done.stderr
    again = {"stream": "true", "after": "ftevent-1-0"}
    steps = [{**again, "after_step": step} for step in ("1", "2")]
    assert state.training.streams == [{"stream": "true"}, *steps]


def test_a_job_that_fails_as_it_is_filed_is_an_error_and_leaves_no_file(
    run: Run, state: State, data: Path
) -> None:
    state.training.ends_at_once, state.training.ending = True, "failed"
    done = run("train", "--data", data, "--name", "poet")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "error: loss_not_finite: ftjob-" in done.stderr
    assert state.training.files == {}


def test_a_paused_job_says_how_it_goes_on(run: Run, state: State, data: Path) -> None:
    run("train", "--data", data, "--name", "poet")
    (id_,) = state.training.jobs
    step = f"is paused; `overtone job {id_[:14]} --resume` lets it go on"
    assert step in run("job", id_, "--pause").stdout
    assert step in run("job", id_).stdout
    assert f"warn  {id_} {step}" in run("job", id_, "--follow").stderr


def test_a_job_that_made_nothing_names_its_adapter(run: Run, state: State, data: Path) -> None:
    run("train", "--data", data, "--name", "poet")
    (id_,) = state.training.jobs
    assert ["adapter", "poet"] in [
        line.split() for line in run("job", id_, "--cancel").stdout.splitlines()
    ]


def test_a_server_that_stays_away_is_told_once(
    client: Client, capfd: pytest.CaptureFixture[str]
) -> None:
    job = client.training.create("tiny", "file-1", name="poet")
    screen = _Screen(job, is_quiet=False)
    (first, *_) = job.events()
    away, busy = ConnectionFailed("cannot reach it"), Unavailable("draining")
    for error in (away, away, busy, busy, away):
        screen.lose(error)
    screen.take(first)
    screen.lose(away)
    told = [line.removeprefix("warn  ") for line in capfd.readouterr().err.splitlines()]
    lost, refused = "cannot reach it; trying again", "draining; trying again"
    assert told == [lost, refused, lost, "info  word 1", lost]


def test_as_json_it_is_the_job_alone(run: Run, data: Path) -> None:
    done = run("train", "--data", data, "--name", "poet", "--follow", "--json")
    assert done.stderr == ""
    assert json.loads(done.stdout)["fine_tuned_model"] == "poet@1"


@pytest.mark.parametrize(("ending", "words"), [("failed", "NaN at step 1"), ("cancelled", "was")])
def test_a_job_that_did_not_succeed_is_an_error(
    run: Run, state: State, data: Path, ending: str, words: str
) -> None:
    state.training.ending = ending
    done = run("train", "--data", data, "--name", "poet", "--follow")
    assert done.exit_code == 1
    assert words in done.stderr.splitlines()[-1]
    assert done.stdout == ""


def test_a_file_with_faults_is_told_and_not_left_behind(run: Run, state: State, data: Path) -> None:
    state.training.faults = "line 3: is not JSON"
    done = run("train", "--data", data, "--name", "poet")
    assert done.exit_code == 1
    assert "error: invalid_training_file: lines.jsonl: line 3: is not JSON" in done.stderr
    assert state.training.files == {}
    assert state.training.bodies == []


@pytest.mark.parametrize(
    "words",
    [
        ["--data", "/no/such/file", "--name", "a"],
        ["--name", "a"],
        ["--data", __file__, "--name", "a", "--set", "novalue"],
    ],
)
def test_wrong_usage_is_two_and_files_no_job(run: Run, state: State, words: list[str]) -> None:
    assert run("train", *words).exit_code == 2
    assert state.training.bodies == []


def test_jobs_are_a_table_or_one_document(run: Run, data: Path) -> None:
    assert run("jobs").stdout == "There are no jobs.\n"
    run("train", "--data", data, "--name", "poet", "--follow")
    lines = run("jobs").stdout.splitlines()
    assert lines[0].split() == ["JOB", "STATUS", "ADAPTER", "METHOD", "STEP", "CREATED"]
    assert lines[1].split()[1:5] == ["succeeded", "poet@1", "fourierft", "2/2"]
    assert len(json.loads(run("jobs", "--json").stdout)["data"]) == 1


def test_more_jobs_than_are_listed_are_mentioned(run: Run, data: Path) -> None:
    for _ in range(2):
        run("train", "--data", data, "--name", "poet", "--follow")
    done = run("jobs", "--limit", "1")
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == "There are more than these 1: --limit\n"
    assert json.loads(run("jobs", "--json", "--limit", "1").stdout)["has_more"] is True
    assert run("jobs").stderr == ""


def test_a_job_can_be_held_and_ended(run: Run, state: State, data: Path, tmp_path: Path) -> None:
    run("train", "--data", data, "--name", "poet")
    (id_,) = state.training.jobs
    assert "paused" in run("job", id_, "--pause").stdout
    assert "is queued" in run("job", id_, "--resume").stdout
    picture = tmp_path / "curve.png"
    assert run("job", id_, "--plot", picture).exit_code == 0
    assert picture.read_bytes() == PNG
    assert "cancelled" in run("job", id_, "--cancel").stdout
    assert run("job", id_, "--cancel", "--pause").exit_code == 2
    assert run("job", f"ftjob-{'f' * 24}").exit_code == 1
    assert run("job", "ftjob-none").exit_code == 2


def test_a_metric_without_something_to_beat_is_refused(run: Run, state: State, data: Path) -> None:
    done = run("train", "--data", data, "--name", "poet", "--metric", "accuracy")
    assert done.exit_code == 2
    assert "--metric needs --better-than" in done.stderr
    assert state.calls == []


# reproduce


# What people read


def test_an_id_is_cut_where_it_still_differs_from_all_others() -> None:
    ids = ["ftjob-" + "a" * 24, "ftjob-" + "a" * 12 + "b" * 12, "ftjob-" + "c" * 24]
    assert shortened(ids) == [id_[:19] for id_ in ids]
    assert shortened(ids[2:]) == ["ftjob-cccccccc"]
    assert shortened([]) == []


def test_two_jobs_that_begin_alike_are_both_named(run: Run, state: State, data: Path) -> None:
    for _ in range(2):
        run("train", "--data", data, "--name", "poet")
    done = run("job", "ftjob-00000")
    assert done.exit_code == 2
    assert all(id_ in done.stderr for id_ in state.training.jobs)
    first = next(iter(state.training.jobs))
    assert run("job", first).exit_code == 0


def test_at_a_terminal_of_80_columns_no_line_is_longer_and_no_id_is_broken(
    run: Run, state: State, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("poet", "an-adapter-with-a-longer-name"):
        run("train", "--data", data, "--name", name, "--follow")
    monkeypatch.setenv("COLUMNS", "80")
    for module in (_job_report, _session):
        monkeypatch.setattr(module, "is_terminal", lambda: True)
    lines = run("jobs").stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    ids = [line.split()[0] for line in lines if line.startswith("ftjob-")]
    assert len(ids) == 2
    assert all(run("job", id_).exit_code == 0 for id_ in ids)


def test_a_picture_that_cannot_be_written_is_said_before_the_job_is_filed(
    run: Run, state: State, data: Path, tmp_path: Path
) -> None:
    nowhere = tmp_path / "no-folder" / "curve.png"
    done = run("train", "--data", data, "--name", "poet", "--plot", nowhere)
    assert done.exit_code == 2
    assert f"cannot write {nowhere}" in done.stderr
    assert state.training.bodies == []
    assert state.training.files == {}
    there = tmp_path / "curve.png"
    assert run("job", "ftjob-" + "f" * 24, "--plot", there).exit_code == 1
    assert not there.exists()


def test_a_file_where_a_picture_is_to_go_stays_until_it_is_written(
    run: Run, tmp_path: Path
) -> None:
    missing = "ftjob-" + "f" * 24
    empty, full, link = tmp_path / "empty.png", tmp_path / "full.png", tmp_path / "link.png"
    empty.touch()
    full.write_bytes(b"old")
    link.symlink_to(tmp_path / "target.png")
    for path in (empty, full, link):
        assert run("job", missing, "--plot", path).exit_code == 1
    assert (empty.read_bytes(), full.read_bytes()) == (b"", b"old")
    assert link.is_symlink()
    assert not link.exists()
