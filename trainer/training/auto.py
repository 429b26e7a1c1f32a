"""`auto`: short runs of a few methods, and the one that is best on the held-out examples wins."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from registry.jobs.spec import JobSpec
from trainer.checkpoint import write_whole
from trainer.interfaces import Reporter, Trained
from trainer.training.preset_values import CANDIDATES

#: Steps of one short run: this part of the job's, within these bounds.
_PART, _LEAST, _MOST = 10, 20, 200

Try = Callable[[JobSpec, Path, Reporter], Trained]


def best_of_all(
    spec: JobSpec, num_steps: int, tried: Try, folder: Path, report: Reporter
) -> JobSpec:
    """Return the job with the method whose short run is best on the held-out examples.

    Each starts at its preset. What a run has shown is kept in the folder, so a job that is run
    again tries only what is left.

    Args:
        spec: of the job.
        num_steps: of the whole job.
        tried: trains one method in a folder of its own.
        folder: the job's.
        report: hears what each has reached; its wishes end a run.
    """
    path = folder / "auto.json"
    losses: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    steps = min(num_steps, max(_LEAST, min(_MOST, num_steps // _PART)))
    hyper = replace(
        spec.hyperparameters, max_steps=steps, early_stopping_patience=None, eval_every=None
    )
    for name in CANDIDATES:
        if name in losses:
            continue
        trial = replace(spec, method=name, method_config={}, hyperparameters=hyper)
        own = folder / "auto" / name
        own.mkdir(parents=True, exist_ok=True)
        losses[name] = tried(trial, own, _OnlyWanted(report)).metrics["eval_loss"]
        report.event("info", f"auto: {name} has held-out loss {losses[name]:.4f} at step {steps}")
        write_whole(path, json.dumps(losses).encode())
    best = min(losses, key=lambda name: (losses[name], name))
    report.event("info", f"auto: {best} is trained", {"held_out_losses": losses})
    return replace(spec, method=best, method_config={})


class _OnlyWanted(Reporter):
    """Hears nothing, wants what another wants."""

    def __init__(self, other: Reporter) -> None:
        self.wanted = other.wanted  # type: ignore[method-assign]
