"""The figures that a job reports are those of the served adapter on the same file."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny_encoders as te
from adapters_core.contract.method_registry import registered
from live import CONFIG, FILE, Live, serving, settings_of
from registry.jobs.spec import Task
from small_jobs import job, lines, sums
from trainer.base import load
from trainer.interfaces import JobFiles, Reporter
from trainer.training.run import run_job
from training_parts import file_id

#: Where a method's preset would be slow on a tiny base, or has nothing to say there.
CONFIGS: dict[str, dict[str, Any]] = {
    "fourierft": {"n_frequency": 40},
    "loca": {"n_frequency": 40},
    "waveletft": {"n_frequency": 40},
    "frod": {"sparse_rate": 0.02},
}
SHORT = {"n_epochs": 1, "batch_size": 4, "checkpoint_every_steps": 1000, "learning_rate": 0.01}
#: Roundings of a dozen layers and a softmax in float32, relative to a loss of a few nats.
TOLERANCE = 1e-4


def evaluated(server: Live, model: str, held: Path, **more: Any) -> dict[str, Any]:
    id_ = file_id(server, held.read_bytes(), name=held.name)
    body = {"model": model, "file": id_, **more}
    answer = server.http.post("/v1/evaluations", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def uploaded(server: Live, name: str, folder: Path, **fields: str) -> None:
    files = {each: (folder / each).read_bytes() for each in (CONFIG, FILE)}
    answer = server.upload(name, files, **fields)
    assert answer.status_code == 201, answer.text


def check(found: dict[str, Any], reported: dict[str, float], count: int) -> None:
    metrics = found["metrics"]
    held_out = {name: value for name, value in reported.items() if name != "train_loss"}
    assert set(metrics) == set(held_out)
    for name, value in held_out.items():
        near = {"accuracy", "f1", "matthews"} & {name}
        limit = 1e-9 if near else TOLERANCE * max(1.0, abs(value))
        assert metrics[name] == pytest.approx(value, abs=limit), name
    assert found["num_examples"] == count


@pytest.mark.parametrize("method", sorted(registered()))
def test_a_texts_figures_are_those_of_its_job(
    method: str, base_folder: Callable[[str], Path], live: Live, tmp_path: Path
) -> None:
    base = load(base_folder("llama"), "causal_lm", name="tiny")
    held = sums(tmp_path / "held.jsonl", 9)
    spec = job(base, method=method, method_config=CONFIGS.get(method, {}), **SHORT)
    done = run_job(spec, base, JobFiles(sums(tmp_path / "a.jsonl", 16), held), tmp_path, Reporter())
    uploaded(live, f"evaluated-{method}", tmp_path)
    found = evaluated(live, f"evaluated-{method}", held)
    check(found, done.metrics, 9)
    assert found["overtone"]["adapter"] == f"evaluated-{method}"
    assert found["overtone"]["mode"] in ("factored", "merged")
    check(evaluated(live, "tiny", held), done.base_metrics, 9)


@pytest.mark.parametrize("task", ["sequence_classification", "regression"])
def test_a_classifiers_and_a_regressions_figures_are_those_of_their_jobs(
    task: Task, tmp_path: Path
) -> None:
    folder = te.save(
        tmp_path / "base", "bert", **({"num_labels": 1} if task == "regression" else {})
    )
    base = load(folder, task, name="tiny")
    labels = (lambda i: i / 7) if task == "regression" else (lambda i: ("bad", "good")[i % 2])
    rows = [{"text": f"{'x' * (i % 9)} number {i}", "label": labels(i)} for i in range(40)]
    train, held = lines(tmp_path / "a.jsonl", rows[:24]), lines(tmp_path / "b.jsonl", rows[24:])
    done = run_job(job(base, task, **SHORT), base, JobFiles(train, held), tmp_path, Reporter())
    metadata = {} if task == "regression" else {"metadata": te.metadata(["bad", "good"])}
    with serving(settings_of(folder, tmp_path / "data")) as server:
        uploaded(server, "judge", tmp_path, **metadata)
        check(evaluated(server, "judge", held), done.metrics, 16)


def test_an_image_classifiers_figures_are_those_of_its_job(tmp_path: Path) -> None:
    folder = te.save(tmp_path / "base", "vit")
    base = load(folder, "image_classification", name="tiny")
    train, held = (zipped(tmp_path / f"{n}.zip", n) for n in (12, 8))
    task: Task = "image_classification"
    done = run_job(job(base, task, **SHORT), base, JobFiles(train, held), tmp_path, Reporter())
    with serving(settings_of(folder, tmp_path / "data")) as server:
        uploaded(server, "eyes", tmp_path, metadata=te.metadata(["cat", "dog"]))
        check(evaluated(server, "eyes", held), done.metrics, 8)


def zipped(path: Path, count: int) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            out = io.BytesIO()
            te.picture(100 * count + number).save(out, "PNG")
            archive.writestr(f"{('cat', 'dog')[number % 2]}/{number}.png", out.getvalue())
    return path
