"""Serving beside training: how the figures are made, and the real programs on a tiny base."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bench.lib.worker import waited_for, write_texts
from bench.programs import interference, train_to_serve
from bench.programs.interference import Pace, Round, Seen, rows_of
from overtone_client import InvalidArgument
from registry.common.fence import Fence
from registry.jobs.folders import JobFolders

JOB = "ftjob-" + "0" * 24
TINY = ["--width", "256", "--layers", "1", "--nice", "0"]


def one_round(alone: float, while_training: float) -> Round:
    """Return a round with these seconds between all tokens but the last hundredth."""

    def seen(gap: float) -> Seen:
        return Seen([gap] * 980 + [4 * gap] * 20, 8 / gap)

    phases = {"alone": seen(alone), "starting": seen(alone), "beside": seen(while_training)}
    return Round(phases, {"beside": Pace(2.0, 0.5), "by itself": Pace(4.0, 1.0)})


def test_ratios_are_medians_of_the_rounds_own() -> None:
    # The machine is slower in the second round, for both alike.
    rounds = [one_round(0.01, 0.012), one_round(0.02, 0.024), one_round(0.01, 0.03)]
    rows = {row["what"]: row for row in rows_of(rounds, "separate")}
    found = rows["between tokens, beside"]
    assert found["p99_ratios"] == [1.2, 1.2, 3.0]
    assert found["p99_ratio"] == pytest.approx(1.2)
    assert found["p50_ratio"] == pytest.approx(1.2)
    assert found["p50_ms"] == pytest.approx(24.0)
    assert found["p99_ms"] == pytest.approx(96.0)
    assert "p99_ratio" not in rows["between tokens, alone"]
    assert rows["training, beside"] | {"steps_s": 2.0, "cores": 0.5} == rows["training, beside"]
    assert rows["training, by itself"]["steps_s"] == 4.0


def test_tokens_after_the_phase_do_not_count() -> None:
    assert interference._until(1.0, (0.5, 1.0, 1.5)) == (0.5, 1.0)


def test_marks_are_what_the_jobs_process_wrote_last(tmp_path: Path) -> None:
    folders = JobFolders(tmp_path)

    class Registry:
        job_folders = folders

    marks = train_to_serve.Marks(Registry(), JOB)  # type: ignore[arg-type]
    folder = folders.take(Fence(JOB, 1))
    for name in ("curve.jsonl", "news.jsonl"):
        (folder / name).write_text("1")
        waited_for(lambda name=name: train_to_serve._MARKS[name] in marks.at, 5.0)
    before = marks.at["step"]
    (folder / "curve.jsonl").write_text("12")
    waited_for(lambda: marks.at["step"] > before, 5.0)
    last = (folder / "curve.jsonl").stat().st_mtime
    folders.remove(JOB)  # as a job does that has ended
    assert marks.end()["step"] == last <= time.time()
    assert not [thread for thread in threading.enumerate() if thread is marks._thread]


def test_rows_tell_median_and_worst() -> None:
    found = [{"step to succeeded": value} for value in (0.2, 0.9, 0.3)]
    (row,) = train_to_serve.rows_of(found, "separate", 8)
    assert row == {
        "what": "last step to succeeded, s",
        "worker": "separate",
        "streams": 8,
        "median": 0.3,
        "max": 0.9,
    }


def test_texts_are_the_same_every_time_and_a_token_a_letter(tmp_path: Path) -> None:
    first = write_texts(tmp_path / "a", 5, 63).read_text()
    assert first == write_texts(tmp_path / "b", 5, 63).read_text()
    assert [len(json.loads(line)["text"]) for line in first.splitlines()] == [63] * 5


def test_what_never_comes_is_given_up() -> None:
    with pytest.raises(TimeoutError, match=r"0\.05 s"):
        waited_for(lambda: None, 0.05)


@pytest.mark.parametrize("program", [interference, train_to_serve])
def test_a_wrong_option_is_named(program: Any) -> None:
    with pytest.raises(InvalidArgument, match="--speed"):
        program.main(["--speed", "3"])


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("separate", [[], ["--separate"]])
def test_callers_are_served_while_a_job_is_held_and_let_go(
    separate: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["--rounds", "1", "--seconds", "1", "--streams", "2", "--batch", "1"]
    interference.main([*TINY, *short, *separate])
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [row["what"] for row in rows] == [
        *(f"between tokens, {phase}" for phase in ("alone", "starting", "beside")),
        *(f"training, {phase}" for phase in ("beside", "by itself")),
    ]
    assert all(0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"] for row in rows[:3])
    assert all(row["cores"] > 0 for row in rows[3:])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_made_adapter_answers_after_its_last_step(capsys: pytest.CaptureFixture[str]) -> None:
    train_to_serve.main([*TINY, "--jobs", "1", "--steps", "2"])
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    figures = {row["what"]: row["median"] for row in rows}
    assert len(figures) == 4
    for end in ("succeeded", "first token"):
        assert 0 < figures[f"last evaluation to {end}, s"] <= figures[f"last step to {end}, s"]
