"""Samples: a few held-out prompts, answered greedily by the adapter as it is at a checkpoint.

They change nothing of the training: the model is in evaluation mode, the likeliest token needs no
random number, and a failure ends the samples, not the job. Of several ranks the first one answers;
the others wait for its next step, as while it evaluates.
"""

import logging
import time
from collections.abc import Callable
from functools import cached_property

import torch

from registry.jobs.samples import Sample, Samples, Source
from trainer.errors import TrainerError
from trainer.tasks.task import Question
from trainer.training.context import JobContext
from trainer.training.precision import autocast
from trainer.training.trainable import TrainableAdapter

log = logging.getLogger(__name__)

#: All samples of a run may take so long, and this share of the run's time. A checkpoint for which
#: less is left than the ones before it took has none: whole answers now and then say more than the
#: first words of all.
FREE_S, SHARE = 1.0, 0.1
#: Seconds between questions whether the job is still wanted.
_ASKED_EVERY_S = 1.0


class Sampler:
    """Answers the prompts of one run.

    Args:
        job: its evaluation's examples have the prompts.
        trainable: left in evaluation mode.
        clock: in seconds; the run's time begins now.
    """

    def __init__(
        self,
        job: JobContext,
        trainable: TrainableAdapter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._job, self._trainable, self._clock = job, trainable, clock
        self._started = self._asked_at = clock()
        self._spent_s, self._cost_s, self._since = 0.0, 0.0, 0.0
        self._is_wanted, self._is_broken = True, False

    def take(self, step: int) -> None:
        """Answer the prompts and report the answers, unless the job is to end."""
        if not self._job.hyper.checkpoint_samples or self._is_broken:
            return
        self._since = self._clock()
        if self._left_s(self._since) < self._cost_s:
            self._job.report.samples(Samples(step, self._source, left_out="time"))
            return
        taken = self._tried(step)
        took_s = self._clock() - self._since
        self._spent_s += took_s
        is_cut = any(one.finish_reason == "time" for one in taken.samples)
        self._cost_s = 2 * took_s if is_cut else took_s
        if self._is_wanted:
            self._job.report.samples(taken)

    def _tried(self, step: int) -> Samples:
        try:
            samples = self._answered()
        except TrainerError:
            raise
        except Exception as error:  # of a base that cannot generate, or for want of memory
            log.exception("no samples at step %d", step)
            self._is_broken = True
            kind = type(error).__name__
            self._job.report.event(
                "warn", f"no more samples, since one failed at step {step}: {kind}"
            )
            return Samples(step, self._source, left_out="failed")
        if samples:
            return Samples(step, self._source, tuple(samples))
        return Samples(step, self._source, left_out="time" if self._questions else "no_prompts")

    @torch.no_grad()
    def _answered(self) -> list[Sample]:
        """Return the answers for which there is time; the last one may be cut."""
        model, device = self._trainable.model.eval(), self._trainable.base.device
        samples: list[Sample] = []
        for asked in self._questions:
            with autocast(model):
                text, ending = self._trainable.task.answer(model, asked, device, self._goes_on)
            if text or ending != "time":
                samples.append(Sample(asked.prompt, asked.expected, text, ending))
            if ending == "time":
                break
        return samples

    @cached_property
    def _questions(self) -> list[Question]:
        return self._job.data.held_out.questions(self._job.hyper.checkpoint_samples)

    def _goes_on(self) -> bool:
        """Return whether there is time for another token, and the job is wanted."""
        now = self._clock()
        if now - self._asked_at >= _ASKED_EVERY_S:
            self._asked_at = now
            self._is_wanted = self._job.report.wanted() == "go"
        return self._is_wanted and now - self._since < self._left_s(now)

    def _left_s(self, now: float) -> float:
        """Return the seconds that samples may still take, those of this checkpoint included."""
        return FREE_S + SHARE * (now - self._started) - self._spent_s

    @property
    def _source(self) -> Source:
        return self._job.data.held_out.param
