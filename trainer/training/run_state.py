"""The state of a run that checkpoints hold: the adapter, AdamW's moments, and the counters."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.checkpoint import Checkpoint, last_checkpoint, save_checkpoint
from trainer.training.trainable import TrainableAdapter


@dataclass
class Progress:
    """The counters of a run.

    Args:
        step: optimiser steps that are done.
        best_loss: of the evaluations so far.
        best_step: the step before that evaluation.
        evaluations_since: evaluations after the best.
        is_over: no further step is wanted.
        train_loss: a running mean.
        steps_above: the last consecutive steps with a loss far above the base's.
        best: the tensors at the best evaluation, by name.
    """

    step: int = 0
    best_loss: float = math.inf
    best_step: int = 0
    evaluations_since: int = 0
    is_over: bool = False
    train_loss: float = math.nan
    steps_above: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)


_NUMBERS = tuple(name for name in Progress.__dataclass_fields__ if name != "best")


class RunState:
    """What a run resumes from.

    Args:
        trainable: the adapter.
        optimizer: of its tensors that move.
        folder: of the checkpoints.
        fits: the values that a checkpoint must have for the run to resume from it.
    """

    def __init__(
        self,
        trainable: TrainableAdapter,
        optimizer: torch.optim.Optimizer,
        folder: Path,
        fits: Mapping[str, Any],
    ) -> None:
        self._trainable, self._optimizer = trainable, optimizer
        self._trained = trainable.trained_tensors()
        self._folder, self._fits = folder, dict(fits)
        self.progress = Progress()
        self._saved = (0, time.monotonic())

    @property
    def steps_since_save(self) -> int:
        """Return the steps that no checkpoint has yet."""
        return self.progress.step - self._saved[0]

    @property
    def seconds_since_save(self) -> float:
        """Return the seconds since the last checkpoint, or since the start."""
        return time.monotonic() - self._saved[1]

    def save(self) -> str:
        """Write a checkpoint and return its name; a failure counts as saved, until the next is due.

        Raises:
            StorageFull: the disk is full; nothing of it is left.
        """
        state = {name: getattr(self.progress, name) for name in _NUMBERS}
        checkpoint = Checkpoint(self.progress.step, self._tensors(), state | self._fits)
        self._saved = (self.progress.step, time.monotonic())
        return save_checkpoint(self._folder, checkpoint)

    def keep_best(self) -> None:
        """Remember the tensors as they are now."""
        self.progress.best = {one.name: one.tensor.detach().clone() for one in self._trained}

    @torch.no_grad()
    def restore_best(self) -> None:
        """Set the tensors to those of the best evaluation."""
        for one in self._trained:
            one.tensor.copy_(self.progress.best[one.name])

    @torch.no_grad()
    def resume(self) -> int | None:
        """Restore the last checkpoint of this job and return its step; None if there is none."""
        found = last_checkpoint(self._folder, self._fits)
        if found is None:
            return None
        for one in self._trainable.tensors():
            one.tensor.copy_(found.tensors[one.name])
        for one in self._trained:
            state = _below(found, f"adam.{one.name}.")
            if state:
                device = one.tensor.device
                moved = {k: v if k == "step" else v.to(device) for k, v in state.items()}
                self._optimizer.state[one.tensor] = moved
        best = {k: v.to(self._trainable.base.device) for k, v in _below(found, "best.").items()}
        numbers = {name: found.state[name] for name in _NUMBERS if name in found.state}
        self.progress = Progress(**numbers, best=best)
        self._saved = (found.step, time.monotonic())
        return found.step

    def _tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {one.name: one.tensor for one in self._trainable.tensors()}
        for one in self._trained:
            for key, value in self._optimizer.state[one.tensor].items():
                tensors[f"adam.{one.name}.{key}"] = value
        return tensors | {f"best.{name}": tensor for name, tensor in self.progress.best.items()}


def _below(found: Checkpoint, start: str) -> dict[str, Tensor]:
    """Return a checkpoint's tensors with this prefix, by the rest of their names."""
    return {k.removeprefix(start): v for k, v in found.tensors.items() if k.startswith(start)}
