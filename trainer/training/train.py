"""The training loop.

Whatever a step needs follows from its number and the seed: its examples, its dropout, its rates.
So a job that goes on from a checkpoint ends, on a CPU in float32, in the same bytes as one that was
never disturbed.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from registry.jobs.spec import Hyperparameters
from trainer.checkpoint import Checkpoint, last_checkpoint, save_checkpoint
from trainer.errors import Cancelled, LossDiverged, LossNotFinite, Paused, StorageFull
from trainer.interfaces import Reporter
from trainer.training.data import Examples
from trainer.training.evaluate import EVAL_BATCH, at_once, evaluate
from trainer.training.gradients import Gradients
from trainer.training.optimizer import optimizer_of
from trainer.training.presets import Rates
from trainer.training.ranks import Ranks
from trainer.training.schedule import Schedule
from trainer.training.trainable import TrainableAdapter

__all__ = ["EVAL_BATCH", "Progress", "Trainer"]

#: A job without `eval_every` that may stop early is evaluated so many times.
_EVALUATIONS = 10
#: So many steps in a row above so many times the base's loss, or this loss, are a divergence.
_STEPS_ABOVE, _TIMES, _SMALL = 5, 3.0, 1.0


@dataclass
class Progress:
    """Where a job stands; with the tensors, all that a checkpoint holds.

    Args:
        step: optimiser steps that are done.
        best_loss: of the evaluations so far.
        best_step: after which it was.
        evaluations_since: of these, the ones after the best.
        is_over: no further step is wanted.
        train_loss: a running mean.
        steps_above: the last ones in a row with a loss far above the base's.
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


class Trainer:
    """One run of the loop.

    Args:
        trainable: what is trained.
        train: examples to learn from.
        held_out: examples to be evaluated on.
        schedule: of the steps.
        hyper: of the job.
        rates: peak learning rates.
        folder: where checkpoints and the curve's numbers go.
        report: hears of everything.
        fits: what a checkpoint must say to be gone on from.
        ranks: who share each step; this is the first of them.
        base_loss: of the base on the held-out examples; NaN where it is not known.
    """

    def __init__(
        self,
        trainable: TrainableAdapter,
        train: Examples,
        held_out: Examples,
        schedule: Schedule,
        hyper: Hyperparameters,
        rates: Rates,
        folder: Path,
        report: Reporter,
        fits: Mapping[str, Any],
        ranks: Ranks | None = None,
        base_loss: float = math.nan,
    ) -> None:
        self._trainable, self._held_out, self._ranks = trainable, held_out, ranks or Ranks()
        self._schedule, self._hyper, self._rates = schedule, hyper, rates
        self._folder, self._report, self._fits = folder / "checkpoints", report, dict(fits)
        self._curve = folder / "curve.jsonl"
        self._tracked = trainable.moved()
        self._gradients = Gradients(trainable, train, schedule, hyper, self._ranks)
        self._optimizer = optimizer_of(self._tracked, rates, hyper.weight_decay)
        known = math.isfinite(base_loss)
        self._most = _TIMES * max(base_loss, _SMALL) if known else math.inf
        self.progress = Progress()
        self._saved = (0, time.monotonic())

    def run(self) -> Progress:
        """Train to the end and return how it went; goes on from the last checkpoint.

        Raises:
            LossNotFinite, LossDiverged: it diverged.
            Paused, Cancelled: it was asked to; a checkpoint is written first.
            RankLost: another rank died, or does not answer.
        """
        self._resume()
        self._ranks.compare(self._trainable)
        started, first = time.monotonic(), self.progress.step
        while self.progress.step < self._schedule.num_steps and not self.progress.is_over:
            self._obey()
            self._step()
            self._evaluate_if_due()
            self._save_if_due()
            self._tell(started, first)
        self._use_best()
        return self.progress

    def _step(self) -> None:
        """Take one optimiser step."""
        step = self.progress.step
        share = self._schedule.share(step)
        loss, num_tokens = self._gradients.add(step)
        self._trainable.plan.freeze_scheduled(step, self._schedule.num_steps)
        norm = self._clipped()
        rate = share * self._rates.coefficients
        for what, value in (("loss", loss), ("gradient", norm)):
            if not math.isfinite(value):
                raise LossNotFinite(what, step + 1, rate, value)
        self._look_at_course(loss, rate)
        for group in self._optimizer.param_groups:
            group["lr"] = share * group["peak"]
        self._optimizer.step()
        self._optimizer.zero_grad()
        mean = self.progress.train_loss
        self.progress.train_loss = loss if math.isnan(mean) else 0.95 * mean + 0.05 * loss
        self.progress.step = step + 1
        values = {"train_loss": loss, "learning_rate": rate, "grad_norm": norm}
        self._note(values | {"tokens": float(num_tokens)})

    def _look_at_course(self, loss: float, rate: float) -> None:
        """End a run whose loss stays far above the base's; one that has a best goes back to it."""
        progress = self.progress
        progress.steps_above = progress.steps_above + 1 if loss > self._most else 0
        if progress.steps_above < _STEPS_ABOVE:
            return
        if not progress.best:
            raise LossDiverged(progress.step + 1, rate, loss, self._most)
        progress.is_over = True
        self._report.event(
            "warn",
            f"the loss is {loss:.3g} at step {progress.step + 1}, far above the base's: the run "
            f"ends with the best evaluation, at step {progress.best_step}",
        )

    def _clipped(self) -> float:
        most = self._hyper.max_grad_norm or math.inf
        norm = nn.utils.clip_grad_norm_([one.tensor for one in self._tracked], most)
        return float(norm)

    def _obey(self) -> None:
        """Stop where somebody wants it; what was done so far is kept."""
        wanted = self._report.wanted()
        if wanted == "go":
            return
        self._save()
        raise Paused if wanted == "pause" else Cancelled

    def _evaluate_if_due(self) -> None:
        progress, every = self.progress, self._eval_every()
        if every is None or progress.step % every or progress.step == self._schedule.num_steps:
            return
        metrics = self._evaluated(self._obey_before_evaluation)
        self._note(metrics)
        self._judge(metrics["eval_loss"])

    def _evaluated(self, still_wanted: Callable[[], None]) -> dict[str, float]:
        return evaluate(self._trainable, self._held_out, at_once(self._hyper), still_wanted)

    def _obey_before_evaluation(self) -> None:
        """Let a cancel through; a step that has been done but not judged is done again."""
        if self._report.wanted() == "cancel":
            raise Cancelled

    def _judge(self, loss: float) -> None:
        """Remember the best tensors of a job that may stop early, and whether it is over."""
        progress, patience = self.progress, self._hyper.early_stopping_patience
        if patience is None:
            return
        if loss < progress.best_loss:
            progress.best_loss, progress.best_step = loss, progress.step
            progress.evaluations_since = 0
            progress.best = {one.name: one.tensor.detach().clone() for one in self._tracked}
            return
        progress.evaluations_since += 1
        if progress.evaluations_since >= patience:
            progress.is_over = True
            self._report.event(
                "info",
                f"stopped early at step {progress.step}: the held-out loss was best at step "
                f"{progress.best_step}",
            )

    def _use_best(self) -> None:
        """Go back to the best evaluation, where the job looks for one."""
        if self._hyper.early_stopping_patience is None:
            return
        if not self.progress.is_over:
            metrics = self._evaluated(lambda: None)
            self._judge(metrics["eval_loss"])
        with torch.no_grad():
            for one in self._tracked:
                one.tensor.copy_(self.progress.best[one.name])

    def _eval_every(self) -> int | None:
        if self._hyper.eval_every or self._hyper.early_stopping_patience is None:
            return self._hyper.eval_every
        return max(1, self._schedule.num_steps // _EVALUATIONS)

    # News and checkpoints.

    def _note(self, values: dict[str, float]) -> None:
        step = self.progress.step
        with suppress(OSError), self._curve.open("a") as file:  # a full disk costs the line only
            file.write(json.dumps({"step": step} | values) + "\n")
        self._report.metrics(step, values)

    def _tell(self, started: float, first: int) -> None:
        done, num_steps = self.progress.step, self._schedule.num_steps
        each = (time.monotonic() - started) / max(1, done - first)
        self._report.progress(done, num_steps, each * (num_steps - done))

    def _save_if_due(self) -> None:
        step, at = self._saved
        due = self.progress.step - step >= self._hyper.checkpoint_every_steps
        late = time.monotonic() - at >= self._hyper.checkpoint_every_s
        if (due or late) and self.progress.step < self._schedule.num_steps:
            self._save()

    def _save(self) -> None:
        if self.progress.step == self._saved[0]:
            return
        state = {name: getattr(self.progress, name) for name in _NUMBERS}
        checkpoint = Checkpoint(self.progress.step, self._tensors(), state | self._fits)
        self._saved = (self.progress.step, time.monotonic())
        try:
            name = save_checkpoint(self._folder, checkpoint)
        except StorageFull as error:  # what it may cost is time, and only after a death
            step = self.progress.step
            self._report.event("warn", f"no checkpoint at step {step}: {error.message}")
            return
        self._report.checkpoint(self.progress.step, name)

    def _tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {one.name: one.tensor for one in self._trainable.tensors()}
        for one in self._tracked:
            for key, value in self._optimizer.state[one.tensor].items():
                tensors[f"adam.{one.name}.{key}"] = value
        return tensors | {f"best.{name}": tensor for name, tensor in self.progress.best.items()}

    @torch.no_grad()
    def _resume(self) -> None:
        """Go on from the last checkpoint of this very job, if there is one."""
        found = last_checkpoint(self._folder, self._fits)
        if found is None:
            return
        for one in self._trainable.tensors():
            one.tensor.copy_(found.tensors[one.name])
        for one in self._tracked:
            state = _below(found, f"adam.{one.name}.")
            if state:
                device = one.tensor.device
                moved = {k: v if k == "step" else v.to(device) for k, v in state.items()}
                self._optimizer.state[one.tensor] = moved
        best = {k: v.to(self._trainable.base.device) for k, v in _below(found, "best.").items()}
        numbers = {name: found.state[name] for name in _NUMBERS if name in found.state}
        self.progress = Progress(**numbers, best=best)
        self._saved = (found.step, time.monotonic())
        self._report.event("info", f"going on from the checkpoint of step {found.step}")


def _below(found: Checkpoint, start: str) -> dict[str, Tensor]:
    """Return a checkpoint's tensors whose names start so, by the rest of their names."""
    return {k.removeprefix(start): v for k, v in found.tensors.items() if k.startswith(start)}
