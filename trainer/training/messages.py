"""The lines for people that a training run reports."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict

from registry.jobs.comparison import LOSS, is_better
from trainer.training.context import JobContext
from trainer.training.presets import Setting

#: Seconds between two lines while layers are prepared.
_PERIOD_S = 5.0


def report_data(job: JobContext) -> None:
    """Report how many examples and tokens there are, and which were changed."""
    facts = job.data.facts
    job.report.event(
        "info",
        f"{facts.num_train} training and {facts.num_held_out} held-out examples, "
        f"{facts.num_tokens} tokens, {facts.num_trained_tokens} of them learned",
        asdict(facts),
    )
    if facts.num_cut:
        job.report.event(
            "warn",
            f"{facts.num_cut} examples were cut at {job.hyper.max_length} tokens, "
            f"{facts.num_cut_tokens} tokens in all",
        )
    if facts.num_rewritten:
        job.report.event(
            "warn",
            f"{facts.num_rewritten} examples have answers that the base cannot write as they are: "
            f"{facts.rewritten}",
        )


def report_start(job: JobContext, setting: Setting) -> None:
    """Report what is trained and how, and which layers are too small for the config."""
    schedule, ranks = job.schedule, job.ranks.count
    job.report.event(
        "info",
        f"training {job.spec.method} on {len(setting.targets)} layers, {schedule.num_steps} steps "
        f"of {schedule.batch_size} examples, learning rate {setting.rates.coefficients:.3g}"
        + (f", by {ranks} processes" if ranks > 1 else ""),
        {"method": setting.method.config(), "learning_rates": asdict(setting.rates)},
    )
    targets = job.base.spec.targets
    fitted = {path: method.fitted(targets[path]) for path, method in setting.methods.items()}
    small = {path: method for path, method in fitted.items() if method != setting.methods[path]}
    if small:
        path, method = next(iter(small.items()))
        config = json.dumps(method.config())
        text = f"{len(small)} layers are too small for this config; {path} is trained with {config}"
        job.report.event("warn", text, {"layers": list(small)})


def report_result(job: JobContext, before: Mapping[str, float], after: Mapping[str, float]) -> None:
    """Report the held-out metrics of the base and of the adapter."""
    compared = ", ".join(
        f"{name} {after[name]:.4f} ({_verdict(name, after[name], value)} than {value:.4f})"
        for name, value in before.items()
    )
    level = "info" if is_better(LOSS, after[LOSS], before[LOSS]) else "warn"
    job.report.event(level, f"held out: {compared}", {"before": before, "after": after})


def layer_progress(job: JobContext) -> Callable[[int, int], None]:
    """Return a function to call after each prepared layer: reports every few seconds.

    It raises Paused or Cancelled if the run is to end.
    """
    tell = _now_and_then(job)

    def prepared(done: int, count: int) -> None:
        tell(f"{job.spec.method}: {done} of {count} layers are ready to be trained")

    return prepared


def basis_progress(job: JobContext) -> Callable[[str, float], None]:
    """Return a function that is told how far a computation is: reports every few seconds.

    It raises Paused or Cancelled if the run is to end.
    """
    tell = _now_and_then(job)

    def computed(name: str, share: float) -> None:
        tell(f"{name} is computed from the base's weights: {share:.0%} are done")

    return computed


def _now_and_then(job: JobContext) -> Callable[[str], None]:
    last = time.monotonic()

    def tell(text: str) -> None:
        nonlocal last
        job.check_wanted()
        if time.monotonic() - last >= _PERIOD_S:
            last = time.monotonic()
            job.report.event("info", text)

    return tell


def _verdict(name: str, value: float, than: float) -> str:
    return "better" if is_better(name, value, than) else "not better"
