"""Checkpoints: tensors as safetensors, the rest as JSON, each folder complete or absent.

A checkpoint is written to a temporary folder, flushed to the disk and renamed. Two are kept, in
case a power failure damages the newer one.
"""

import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from registry.common import whole_files
from trainer.errors import StorageFull

_TENSORS, _STATE = "state.safetensors", "state.json"
_KEPT = 2
_PREFIX = "step-"


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to resume with the same results.

    Args:
        step: optimiser steps that are done.
        tensors: by name.
        state: JSON values.
    """

    step: int
    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]


def save_checkpoint(folder: Path, given: Checkpoint) -> str:
    """Write a checkpoint below `folder` and return its name; of older ones the newest is kept.

    Raises:
        StorageFull: the disk is full; nothing of the checkpoint is left.
    """
    name = f"{_PREFIX}{given.step:08d}"
    part = folder / f".{name}.part"
    with _space(folder):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            tensors = {key: tensor.detach().cpu() for key, tensor in given.tensors.items()}
            whole_files.write_synced(
                part / _TENSORS, save({k: t.contiguous() for k, t in tensors.items()})
            )
            state = dict(given.state) | {"step": given.step}
            whole_files.write_synced(part / _STATE, json.dumps(state, sort_keys=True).encode())
            shutil.rmtree(folder / name, ignore_errors=True)
            part.rename(folder / name)
            whole_files.sync(folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    for old in _names(folder)[:-_KEPT]:
        shutil.rmtree(folder / old, ignore_errors=True)
    return name


def last_checkpoint(folder: Path, fits: Mapping[str, Any]) -> Checkpoint | None:
    """Return the newest readable checkpoint with the values of `fits` in its state."""
    for name in reversed(_names(folder)):
        found = _read(folder / name)
        if found is not None and all(found.state.get(key) == fits[key] for key in fits):
            return found
    return None


def _read(folder: Path) -> Checkpoint | None:
    try:
        state = json.loads((folder / _STATE).read_text())
        return Checkpoint(int(state["step"]), load_file(folder / _TENSORS), state)
    except (OSError, ValueError, KeyError, SafetensorError):
        return None  # damaged: the one before is used


def _names(folder: Path) -> list[str]:
    """Return the checkpoints of a folder, oldest first."""
    return sorted(path.name for path in folder.glob(f"{_PREFIX}*"))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file atomically: complete or not at all.

    Raises:
        StorageFull: the disk is full.
    """
    with _space(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        whole_files.write_whole(path, data)


@contextmanager
def _space(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"the disk of the job's folder {folder.name!r} on the worker's machine is full; "
                "free some space there"
            ) from error
        raise
