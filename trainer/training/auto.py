"""The method `auto`: short runs of a few methods; the best on held-out examples is trained."""

import json
from collections.abc import Callable
from dataclasses import replace

from registry.jobs.comparison import LOSS
from trainer.checkpoint import write_whole
from trainer.interfaces import Reporter, Trained, Wanted
from trainer.training.context import JobContext
from trainer.training.preset_values import CANDIDATES

#: Steps of one short run: the job's divided by the first, within the other two.
_PART, _LEAST, _MOST = 10, 20, 200


def with_best_method(job: JobContext, train: Callable[[JobContext], Trained]) -> JobContext:
    """Return the job with the method whose short run is best on the held-out examples.

    Each method runs with its preset. The losses are kept in the folder, so that a job that runs
    again tries only the methods that are left.

    Args:
        job: reports each method's loss; its reporter may end a run.
        train: trains one method, in the folder of its context.
    """
    path = job.folder / "auto.json"
    losses: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    num_steps = job.schedule.num_steps
    steps = min(num_steps, max(_LEAST, min(_MOST, num_steps // _PART)))
    for name in CANDIDATES:
        if name in losses:
            continue
        losses[name] = train(_trial(job, name, steps)).metrics[LOSS]
        text = f"auto: {name} has held-out loss {losses[name]:.4f} at step {steps}"
        job.report.event("info", text)
        write_whole(path, json.dumps(losses).encode())
    best = min(losses, key=lambda name: (losses[name], name))
    job.report.event("info", f"auto: {best} is trained", {"held_out_losses": losses})
    return replace(job, spec=replace(job.spec, method=best, method_config={}))


def _trial(job: JobContext, method: str, steps: int) -> JobContext:
    """Return the context of one short run, in a folder of its own."""
    hyper = replace(job.hyper, max_steps=steps, checkpoint_samples=0)
    hyper = replace(hyper, early_stopping_patience=None, eval_every=None)
    spec = replace(job.spec, method=method, method_config={}, hyperparameters=hyper)
    folder = job.folder / "auto" / method
    folder.mkdir(parents=True, exist_ok=True)
    return replace(job, spec=spec, folder=folder, report=_OnlyWanted(job.report))


class _OnlyWanted(Reporter):
    """Ignores news, and wants what another reporter wants."""

    def __init__(self, other: Reporter) -> None:
        self._other = other

    def wanted(self) -> Wanted:
        return self._other.wanted()
