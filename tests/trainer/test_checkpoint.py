"""A checkpoint is there whole or not at all, and the one before it still is."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.checkpoint import Checkpoint, last_checkpoint, save_checkpoint, write_whole
from trainer.errors import StorageFull

FITS = {"job": "a"}


def made(step: int) -> Checkpoint:
    return Checkpoint(step, {"x": torch.full((3,), float(step))}, FITS | {"loss": float("inf")})


def test_what_was_saved_comes_back_and_two_are_kept(tmp_path: Path) -> None:
    names = [save_checkpoint(tmp_path, made(step)) for step in (9, 10, 100)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names[1:]
    found = last_checkpoint(tmp_path, FITS)
    assert found is not None
    assert found.step == 100
    assert torch.equal(found.tensors["x"], made(100).tensors["x"])
    assert found.state["loss"] == float("inf")
    kinds = {path.suffix for path in (tmp_path / names[2]).iterdir()}
    assert kinds == {".safetensors", ".json"}


def test_nothing_is_found_where_nothing_is_or_where_another_job_was(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "none", FITS) is None
    save_checkpoint(tmp_path, made(1))
    assert last_checkpoint(tmp_path, {"job": "b"}) is None


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "gone"])
def test_a_damaged_one_gives_way_to_the_one_before(tmp_path: Path, name: str, damage: str) -> None:
    save_checkpoint(tmp_path, made(1))
    file = tmp_path / save_checkpoint(tmp_path, made(2)) / name
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:20] if damage == "cut" else b"")
    found = last_checkpoint(tmp_path, FITS)
    assert found is not None
    assert found.step == 1


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, made(1))
    write_whole(tmp_path / "file", b"old")

    def full(handle: int) -> Any:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull, match="is full; free some space there") as raised:
        save_checkpoint(tmp_path, made(2))
    assert raised.value.code == "storage_full"
    with pytest.raises(StorageFull):
        write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    found = last_checkpoint(tmp_path, FITS)
    assert found is not None
    assert found.step == 1
    assert not list(tmp_path.glob(".step*"))
