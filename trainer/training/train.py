"""The training loop.

A step's examples, dropout and rates follow from its number and the seed alone. So a job that
resumes from a checkpoint ends, on a CPU in float32, in the same bytes as an undisturbed one.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from torch import nn

from trainer.errors import Cancelled, LossDiverged, LossNotFinite, Paused, StorageFull
from trainer.training.context import JobContext
from trainer.training.evaluate import evaluate
from trainer.training.gradients import Gradients
from trainer.training.optimizer import optimizer_of
from trainer.training.presets import Rates
from trainer.training.run_state import Progress, RunState
from trainer.training.samples import Sampler
from trainer.training.trainable import TrainableAdapter

#: Evaluations of a job without `eval_every` that may stop early.
_EVALUATIONS = 10
#: So many consecutive steps above so many times the base's loss, or this loss, are a divergence.
_STEPS_ABOVE, _TIMES, _SMALL = 5, 3.0, 1.0


class Trainer:
    """One run of the loop.

    Args:
        job: its ranks share each step; this process is the first of them.
        trainable: what is trained.
        rates: peak learning rates.
        fits: the values that a checkpoint must have for the run to resume from it.
        base_loss: of the base on the held-out examples; NaN if it is not known.
    """

    def __init__(
        self,
        job: JobContext,
        trainable: TrainableAdapter,
        rates: Rates,
        fits: Mapping[str, Any],
        base_loss: float = math.nan,
    ) -> None:
        self._job, self._trainable, self._rates = job, trainable, rates
        self._report, self._schedule, self._hyper = job.report, job.schedule, job.hyper
        self._curve = job.folder / "curve.jsonl"
        self._trained = trainable.trained_tensors()
        self._gradients = Gradients(trainable, job.data.train, job.schedule, job.hyper, job.ranks)
        self._optimizer = optimizer_of(self._trained, rates, job.hyper.weight_decay)
        self._state = RunState(trainable, self._optimizer, job.folder / "checkpoints", fits)
        self._sampler = Sampler(job, trainable)
        known = math.isfinite(base_loss)
        self._most = _TIMES * max(base_loss, _SMALL) if known else math.inf

    @property
    def _progress(self) -> Progress:
        return self._state.progress

    def run(self) -> Progress:
        """Train to the end and return how it went; resumes from the last checkpoint.

        Raises:
            LossNotFinite, LossDiverged: it diverged.
            Paused, Cancelled: as the reporter wanted; a checkpoint is written first.
            RankLost: another rank ended, or does not answer.
        """
        step = self._state.resume()
        if step is not None:
            self._report.event("info", f"going on from the checkpoint of step {step}")
        self._job.ranks.compare(self._trainable)
        started, first = time.monotonic(), self._progress.step
        while self._progress.step < self._schedule.num_steps and not self._progress.is_over:
            self._stop_if_wanted()
            self._step()
            self._evaluate_if_due()
            self._save_if_due()
            self._report_progress(started, first)
        self._use_best()
        return self._progress

    def _step(self) -> None:
        """Take one optimiser step."""
        step = self._progress.step
        share = self._schedule.share(step)
        loss, num_tokens = self._gradients.add(step)
        self._trainable.plan.freeze_scheduled(step, self._schedule.num_steps)
        norm = self._clipped()
        rate = share * self._rates.coefficients
        for what, value in (("loss", loss), ("gradient", norm)):
            if not math.isfinite(value):
                raise LossNotFinite(what, step + 1, rate, value)
        self._check_divergence(loss, rate)
        for group in self._optimizer.param_groups:
            group["lr"] = share * group["peak"]
        self._optimizer.step()
        self._optimizer.zero_grad()
        mean = self._progress.train_loss
        self._progress.train_loss = loss if math.isnan(mean) else 0.95 * mean + 0.05 * loss
        self._progress.step = step + 1
        values = {"train_loss": loss, "learning_rate": rate, "grad_norm": norm}
        self._record(values | {"tokens": float(num_tokens)})

    def _check_divergence(self, loss: float, rate: float) -> None:
        """End a run whose loss stays far above the base's, at its best evaluation if it has one.

        Raises:
            LossDiverged: it was never evaluated.
        """
        progress = self._progress
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
        """Clip the gradients and return their norm before."""
        most = self._hyper.max_grad_norm or math.inf
        norm = nn.utils.clip_grad_norm_([one.tensor for one in self._trained], most)
        return float(norm)

    def _stop_if_wanted(self) -> None:
        """Write a checkpoint and raise Paused or Cancelled if the run is to end."""
        wanted = self._report.wanted()
        if wanted == "go":
            return
        self._save()
        raise Paused if wanted == "pause" else Cancelled

    def _evaluate_if_due(self) -> None:
        step, every = self._progress.step, self._eval_every()
        if every is None or step % every or step == self._schedule.num_steps:
            return
        metrics = self._evaluated(self._check_cancelled)
        self._record(metrics)
        self._judge(metrics["eval_loss"])

    def _evaluated(self, still_wanted: Callable[[], None]) -> dict[str, float]:
        held_out, size = self._job.data.held_out, self._job.evaluation_batch
        return evaluate(self._trainable, held_out, size, still_wanted)

    def _check_cancelled(self) -> None:
        """Raise Cancelled if that is wanted; a pause waits until the step has been evaluated."""
        if self._report.wanted() == "cancel":
            raise Cancelled

    def _judge(self, loss: float) -> None:
        """Keep the best tensors of a job that may stop early, and decide whether it is over."""
        progress, patience = self._progress, self._hyper.early_stopping_patience
        if patience is None:
            return
        if loss < progress.best_loss:
            progress.best_loss, progress.best_step = loss, progress.step
            progress.evaluations_since = 0
            self._state.keep_best()
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
        """Restore the best evaluation's tensors, if the job may stop early."""
        if self._hyper.early_stopping_patience is None:
            return
        if not self._progress.is_over:
            metrics = self._evaluated(lambda: None)
            self._judge(metrics["eval_loss"])
        self._state.restore_best()

    def _eval_every(self) -> int | None:
        if self._hyper.eval_every or self._hyper.early_stopping_patience is None:
            return self._hyper.eval_every
        return max(1, self._schedule.num_steps // _EVALUATIONS)

    def _record(self, values: dict[str, float]) -> None:
        """Report a step's values, and append them to the curve's file."""
        step = self._progress.step
        with suppress(OSError), self._curve.open("a") as file:  # a full disk costs the line only
            file.write(json.dumps({"step": step} | values) + "\n")
        self._report.metrics(step, values)

    def _report_progress(self, started: float, first: int) -> None:
        done, num_steps = self._progress.step, self._schedule.num_steps
        each = (time.monotonic() - started) / max(1, done - first)
        self._report.progress(done, num_steps, each * (num_steps - done))

    def _save_if_due(self) -> None:
        is_due = self._state.steps_since_save >= self._hyper.checkpoint_every_steps
        is_late = self._state.seconds_since_save >= self._hyper.checkpoint_every_s
        if not (is_due or is_late) or self._progress.step >= self._schedule.num_steps:
            return
        if self._save():
            self._sampler.take(self._progress.step)

    def _save(self) -> bool:
        """Write a checkpoint and return whether there is a new one."""
        if not self._state.steps_since_save:
            return False
        step = self._progress.step
        try:
            name = self._state.save()
        except StorageFull as error:  # training continues: a later interruption costs more steps
            self._report.event("warn", f"no checkpoint at step {step}: {error.message}")
            return False
        self._report.checkpoint(step, name)
        return True
