"""The process of a rank beyond the first: `python -m trainer.job.rank`, its orders on stdin.

It holds the base, the training examples and, during a run, a trainable adapter; it sends nothing
but gradients. It is killed when the first rank's process ends, however that ends.
"""

import json
import logging
import os
import signal
import sys
from contextlib import ExitStack
from typing import Any, TextIO

from registry.jobs.spec import JobSpec
from trainer.base import LoadedBase
from trainer.errors import TrainerError, WrongBase
from trainer.interfaces import Reporter
from trainer.job.child import tie_to
from trainer.process.child_task import function_of
from trainer.tasks.choice import task_of
from trainer.training.context import job_setting
from trainer.training.data import open_data
from trainer.training.gradient_checkpointing import gradient_checkpointing
from trainer.training.gradients import Gradients
from trainer.training.rank_task import RankTask
from trainer.training.ranks import DistributedRanks
from trainer.training.schedule import schedule_of
from trainer.training.trainable import TrainableAdapter

log = logging.getLogger(__name__)


def main() -> int:
    """Follow the orders on standard input; return the process's exit code."""
    task = RankTask.model_validate_json(sys.stdin.readline())
    if not tie_to(task.parent):
        return 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")  # libraries print to standard error instead
    os.dup2(2, 1)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        settings = task.settings
        load = function_of(settings.load)
        bases = settings.data / "bases"
        base = load(settings.base, task.task, settings.base_name, task.device, bases=bases)
    except Exception as error:
        log.exception("rank %d cannot load the base", task.number)
        why = error.message if isinstance(error, TrainerError) else type(error).__name__
        _say(answers, {"error": why})
        return 1
    _say(answers, {"ready": True})
    with Rank(task, base) as rank:
        for line in sys.stdin:
            rank.follow(json.loads(line))
    return 0


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


class Rank:
    """A rank's part of a job.

    Args:
        task: as the first rank gave it.
        base: loaded; unchanged afterwards.
    """

    def __init__(self, task: RankTask, base: LoadedBase) -> None:
        self._task, self._base = task, base
        self._ranks = DistributedRanks(task.number, len(task.settings.devices), base.device)
        self._run = ExitStack()  # closed at the end of a training run
        self._gradients: Gradients | None = None

    def follow(self, order: dict[str, Any]) -> None:
        """Follow one order; see rank_task.py.

        Raises:
            RankLost: the other ranks do not answer.
        """
        if "join" in order:
            self._ranks.join(self._task.meeting, self._task.timeout_s)
        elif "begin" in order:
            self._begin(JobSpec.from_json(order["begin"]))
        elif "compare" in order:
            self._ranks.compare(self._at_work.trainable)
        else:
            self._at_work.add(order["step"])

    def __enter__(self) -> "Rank":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._run.close()
        if kind is None:  # after an error NCCL would wait for lost ranks
            self._ranks.leave()

    @property
    def _at_work(self) -> Gradients:
        assert self._gradients is not None, "the first order of a run is `begin`"
        return self._gradients

    def _begin(self, spec: JobSpec) -> None:
        """Prepare the trainable adapter that the first rank has."""
        self._run.close()
        hyper, base = spec.hyperparameters, self._base
        if spec.base_fingerprint not in ("", base.spec.fingerprint):  # its folder has changed
            raise WrongBase(f"the base is {base.spec.fingerprint}, not {spec.base_fingerprint}")
        task = task_of(spec.task, base, hyper, Reporter())
        data = open_data(self._task.files, task, spec.seed, self._task.folder / "data.json")
        setting = job_setting(spec, base)
        trainable = TrainableAdapter(base, setting, task, spec.seed)
        self._run.callback(trainable.undo)
        self._run.enter_context(gradient_checkpointing(base.model, hyper.gradient_checkpointing))
        schedule = schedule_of(hyper, len(data.train), spec.seed)
        self._gradients = Gradients(trainable, data.train, schedule, hyper, self._ranks)


if __name__ == "__main__":
    code = 1
    try:
        code = main()
    except Exception:
        log.exception("the rank failed")
    logging.shutdown()
    os._exit(code)  # torch's shutdown would delay the adapter's publication by a second
