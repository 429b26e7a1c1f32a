"""A job that is interrupted, packed or thrifty with memory ends in the undisturbed bytes."""

import logging
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny_encoders
from adapters_core.contract.method_registry import registered
from small_jobs import Killed, Watcher, files_of, job, killing_at, lines
from trainer.base import LoadedBase, make
from trainer.errors import Cancelled, Paused
from trainer.interfaces import JobFiles
from trainer.training.run import run_job


@pytest.fixture(scope="module")
def undisturbed(
    base: LoadedBase, files: JobFiles, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bytes, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    run_job(job(base), base, files, folder, Watcher())
    return files_of(folder)


def test_a_job_killed_anywhere_ends_in_the_undisturbed_bytes(
    base: LoadedBase, files: JobFiles, undisturbed: tuple[bytes, bytes], tmp_path: Path
) -> None:
    for number in random.Random(3).choices(range(1, 13), k=6):
        with pytest.raises(Killed):
            run_job(job(base), base, files, tmp_path, Watcher(killing_at(number)))
        assert not (tmp_path / "adapter_model.safetensors").exists()
    watcher = Watcher()
    run_job(job(base), base, files, tmp_path, watcher)
    assert files_of(tmp_path) == undisturbed
    assert any("going on from the checkpoint" in message for _, message in watcher.events)


def test_a_finished_job_that_is_run_again_gives_the_same_bytes(
    base: LoadedBase, files: JobFiles, undisturbed: tuple[bytes, bytes], tmp_path: Path
) -> None:
    first = run_job(job(base), base, files, tmp_path, Watcher())
    again = run_job(job(base), base, files, tmp_path, Watcher())
    assert files_of(tmp_path) == undisturbed
    assert again.metrics["eval_loss"] == first.metrics["eval_loss"]


@pytest.mark.parametrize(("wanted", "raised"), [("pause", Paused), ("cancel", Cancelled)])
def test_a_job_stops_within_a_step_and_goes_on_from_there(
    base: LoadedBase,
    files: JobFiles,
    undisturbed: tuple[bytes, bytes],
    tmp_path: Path,
    wanted: str,
    raised: type[Exception],
) -> None:
    watcher = Watcher(lambda asked: "go" if asked < 10 else wanted)  # type: ignore[arg-type,return-value]
    with pytest.raises(raised):
        run_job(job(base), base, files, tmp_path, watcher)
    assert watcher.asked == 10
    assert watcher.checkpoints[-1][0] == watcher.places[-1][0]
    run_job(job(base), base, files, tmp_path, Watcher())
    assert files_of(tmp_path) == undisturbed


@pytest.mark.parametrize("method", sorted(registered()))
def test_every_method_learns_by_its_preset_and_resumes_exactly(
    method: str, base: LoadedBase, files: JobFiles, tmp_path: Path
) -> None:
    small = {"c3a": {"block_size": 8}, "vera": {"r": 16}, "tinylora": {"u": 8}}
    spec = job(base, method=method, method_config=small.get(method, {}))
    done = run_job(spec, base, files, tmp_path / "whole", Watcher())
    assert done.metrics["eval_loss"] < done.base_metrics["eval_loss"]
    with pytest.raises(Killed):
        run_job(spec, base, files, tmp_path / "cut", Watcher(killing_at(12)))
    run_job(spec, base, files, tmp_path / "cut", Watcher())
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def test_another_seed_is_another_adapter(
    base: LoadedBase, files: JobFiles, undisturbed: tuple[bytes, bytes], tmp_path: Path
) -> None:
    run_job(job(base, seed=1), base, files, tmp_path, Watcher())
    assert files_of(tmp_path) != undisturbed


def test_packing_and_accumulation_change_nothing_but_rounding(
    base: LoadedBase, files: JobFiles, tmp_path: Path
) -> None:
    def trained(name: str, **changes: Any) -> dict[str, torch.Tensor]:
        run_job(job(base, max_steps=3, **changes), base, files, tmp_path / name, Watcher())
        return load_file(tmp_path / name / "adapter_model.safetensors")

    plain = trained("plain")
    for number, changes in enumerate(({"packing": False}, {"gradient_accumulation": 3})):
        found = trained(str(number), **changes)
        assert found.keys() == plain.keys()
        for name, tensor in found.items():
            assert (tensor - plain[name]).norm() < 1e-2 * plain[name].norm()


def test_gradient_checkpointing_changes_nothing_but_memory(
    base: LoadedBase, files: JobFiles, undisturbed: tuple[bytes, bytes], tmp_path: Path
) -> None:
    run_job(job(base, gradient_checkpointing=True), base, files, tmp_path, Watcher())
    assert files_of(tmp_path)[0] == undisturbed[0]


def test_gradient_checkpointing_of_a_classifier_warns_of_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    task = "sequence_classification"
    base = make(tiny_encoders.model("bert"), tiny_encoders.tokenizer(), "tiny", task)
    uses_cache = base.model.config.use_cache  # type: ignore[union-attr]
    files = JobFiles(lines(tmp_path / "a", ({"text": f"{i}", "label": i % 2} for i in range(20))))
    written = []
    for is_on in (True, False):
        folder = tmp_path / str(is_on)
        spec = job(base, task, max_steps=3, gradient_checkpointing=is_on)
        run_job(spec, base, files, folder, Watcher())
        written.append(files_of(folder)[0])
    assert written[0] == written[1]
    assert base.model.config.use_cache == uses_cache  # type: ignore[union-attr]
    assert not [record.getMessage() for record in caplog.records]
