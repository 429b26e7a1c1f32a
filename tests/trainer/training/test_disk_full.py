"""A job on a disk that has no room left: a small one of its own, really full."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from small_jobs import QUICK, Watcher, files_of, job, lm_base, sums
from trainer.errors import StorageFull
from trainer.interfaces import JobFiles
from trainer.training.run import run_job

_SIZE = "1m"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a file system of its own needs the right to mount one")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class Filling(Watcher):
    """Fills the disk after the first checkpoint, and makes room again at a step."""

    disk: Path = Path()
    until: int = 0
    filled: list[int] = field(default_factory=list)

    def checkpoint(self, step: int, name: str) -> None:
        super().checkpoint(step, name)
        if not self.filled:
            self.filled.append(step)
            fill(self.disk)

    def progress(self, step: int, num_steps: int, seconds_left: float | None) -> None:
        super().progress(step, num_steps, seconds_left)
        if step == self.until:
            (self.disk / "rubbish").unlink()


def fill(disk: Path) -> None:
    """Leave no byte."""
    with (disk / "rubbish").open("wb", buffering=0) as out, suppress(OSError):
        while out.write(b"x" * 4096):
            continue
    assert os.statvfs(disk).f_bavail == 0


def test_a_full_disk_is_waited_out_by_a_job_that_trains(disk: Path, tmp_path: Path) -> None:
    base, files = lm_base(), JobFiles(sums(tmp_path / "a"))
    run_job(job(base), base, files, tmp_path / "undisturbed", Watcher())
    watcher = Filling(disk=disk, until=10)
    (disk / "job").mkdir()
    # Three steps' lines still fit into its first page; the fourth step's needs room.
    (disk / "job" / "curve.jsonl").write_bytes(b" " * (4096 - 400))
    run_job(job(base), base, files, disk / "job", watcher)
    assert files_of(disk / "job") == files_of(tmp_path / "undisturbed")
    every = QUICK.checkpoint_every_steps
    assert [step for step, _ in watcher.checkpoints] == [every, 4 * every]
    warned = [message for level, message in watcher.events if level == "warn"]
    assert [message.partition(":")[0] for message in warned] == [
        f"no checkpoint at step {number * every}" for number in (2, 3)
    ]
    assert "is full; free some space there" in warned[0]


def test_what_a_full_disk_leaves_of_a_job_is_no_adapter(disk: Path, tmp_path: Path) -> None:
    base, files = lm_base(), JobFiles(sums(tmp_path / "a"))
    with pytest.raises(OSError, match="No space left"):
        run_job(job(base), base, files, disk / "job", Filling(disk=disk))
    assert not (disk / "job" / "adapter_model.safetensors").exists()
    (disk / "rubbish").unlink()
    run_job(job(base), base, files, disk / "job", Watcher())
    run_job(job(base), base, files, tmp_path / "undisturbed", Watcher())
    assert files_of(disk / "job") == files_of(tmp_path / "undisturbed")


def test_a_full_disk_at_the_start_of_a_job_is_reported(disk: Path, tmp_path: Path) -> None:
    base, files = lm_base(), JobFiles(sums(tmp_path / "a"))
    (disk / "job").mkdir()
    fill(disk)
    with pytest.raises(StorageFull, match="free some space there"):
        run_job(job(base), base, files, disk / "job", Watcher())
