"""TensorBoard's files, read back by TensorBoard: every step once, whatever happened to the job."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from job_attempts import STEPS, attempt, claimed, file_job
from program import run_worker_command
from registry.connect import connect
from small_jobs import Killed, Watcher, job, lm_base, sums
from trainer.base import LoadedBase
from trainer.errors import Paused
from trainer.interfaces import JobFiles, Wanted
from trainer.job.tensorboard import EventFiles, check, with_event_files
from trainer.training.run import run_job

pytestmark = pytest.mark.usefixtures("few_threads")
TRAINED = {"train_loss", "learning_rate", "grad_norm", "tokens"}


@pytest.fixture(scope="module")
def base() -> LoadedBase:
    return lm_base()


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return tag -> steps and values, as TensorBoard shows them."""
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="the extra tensorboard is not installed",
    )
    read = reader.EventAccumulator(str(folder), {"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def told(watcher: Watcher) -> dict[str, list[tuple[int, float]]]:
    """Return the same of what the registry hears; each file holds float32."""
    found: dict[str, list[tuple[int, float]]] = {}
    for step, values in watcher.values:
        for tag, value in values.items():
            found.setdefault(tag, []).append((step, pytest.approx(value, rel=1e-6)))
    return found


def test_every_number_of_a_job_is_there_by_its_step(base: LoadedBase, tmp_path: Path) -> None:
    files, watcher = JobFiles(sums(tmp_path / "sums.jsonl")), Watcher()
    with with_event_files(watcher, tmp_path / "runs", "ftjob-1") as report:
        run_job(job(base, eval_every=4), base, files, tmp_path / "job", report)

    shown = points(tmp_path / "runs" / "ftjob-1")

    assert shown == told(watcher)
    assert set(shown) >= TRAINED | {"eval_loss", "perplexity", "accuracy"}
    assert [step for step, _ in shown["train_loss"]] == list(range(1, 15))
    assert [step for step, _ in shown["eval_loss"]] == [0, 4, 8, 12, 14]


def test_a_job_that_was_disturbed_shows_no_step_twice(base: LoadedBase, tmp_path: Path) -> None:
    """Killed between checkpoints, killed in its last evaluation, and paused."""
    files = JobFiles(sums(tmp_path / "sums.jsonl"))
    spec, whole = job(base, eval_every=4), Watcher()
    run_job(spec, base, files, tmp_path / "whole", whole)
    runs = tmp_path / "runs"

    disturbed = [(5, _killed, Killed), (8, lambda: "pause", Paused), (14, _killed, Killed)]
    for step, wish, error in disturbed:  # checkpoints are at 3, 6, 9, 12, and at the pause
        with pytest.raises(error):  # a killed process does not close its files
            run_job(spec, base, files, tmp_path / "job", EventFiles(_from(step, wish), runs))
        assert max(at for at, _ in points(runs)["train_loss"]) == step
    with EventFiles(Watcher(), runs) as report:
        run_job(spec, base, files, tmp_path / "job", report)

    assert len(list(runs.iterdir())) == 4
    assert points(runs) == told(whole)


def _killed() -> Wanted:
    raise Killed


def _from(step: int, wish: Callable[[], Wanted]) -> Watcher:
    """Return what disturbs a job after this step."""
    watcher = Watcher()
    watcher.disturb = lambda asked: (
        wish() if watcher.places and watcher.places[-1][0] >= step else "go"
    )
    return watcher


def test_an_evaluation_alone_leaves_its_steps_training(tmp_path: Path) -> None:
    with EventFiles(Watcher(), tmp_path) as report:
        report.metrics(1, {"train_loss": 2.0})
    with EventFiles(Watcher(), tmp_path) as report:  # goes on where only that was missing
        report.metrics(1, {"eval_loss": 3.0})

    assert points(tmp_path) == {"train_loss": [(1, 2.0)], "eval_loss": [(1, 3.0)]}


def test_a_run_that_cannot_be_written_costs_a_warning_and_no_job(
    base: LoadedBase, tmp_path: Path
) -> None:
    files, watcher = JobFiles(sums(tmp_path / "sums.jsonl")), Watcher()
    (tmp_path / "runs").write_text("no folder")
    with EventFiles(watcher, tmp_path / "runs") as report:
        done = run_job(job(base), base, files, tmp_path / "job", report)

    assert done.steps == 14
    warnings = [message for level, message in watcher.events if level == "warn"]
    assert warnings == ["no more is written for TensorBoard: File exists"]


def test_without_a_folder_nothing_is_between_job_and_registry() -> None:
    watcher = Watcher()
    with with_event_files(watcher, None, "ftjob-1") as report:
        assert report is watcher


def test_an_attempt_writes_its_jobs_run_where_its_worker_says(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with connect("embedded", tmp_path / "data") as registry:
        spec = file_job(registry)
        attempt(registry, claimed(registry, spec), tensorboard=str(runs))

    assert [path.name for path in runs.iterdir()] == [spec.id]
    assert [step for step, _ in points(runs / spec.id)["train_loss"]] == list(range(1, STEPS + 1))


def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # what Python takes for not there
    with pytest.raises(ValueError, match=r"pip install 'overtone\[tensorboard\]'"):
        check(tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_worker_refuses_impossible_settings_at_its_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for words, says in (
        (("--tensorboard", str(tmp_path / "file")), "File exists"),
        (("--device", "cuda:0,cuda:0"), "twice"),
    ):
        done: subprocess.CompletedProcess[str] = run_worker_command("--base", "x", *words)
        assert done.returncode == 2
        assert says in done.stderr
        assert "Traceback" not in done.stderr
