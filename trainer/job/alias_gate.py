"""Whether a new version may be put under its alias, and putting it there."""

import math
from collections.abc import Mapping
from typing import Any

from registry.adapters.adapters import AdapterEntry, Adapters
from registry.adapters.records import Record
from registry.errors import AdapterNotFound, PreconditionFailed
from registry.jobs.spec import JobSpec, PublishGate
from trainer.training.evaluate import is_better

#: Under this name a version's metrics hold the base's own.
BASE = "base"
_LOSS = "eval_loss"


def open_alias(adapters: Adapters, spec: JobSpec, record: Record) -> str | None:
    """Move the job's alias to its version if its gate allows it; twice is harmless.

    Returns:
        why it was not moved; None if it was, or if there is no alias.

    Raises:
        AdapterNotFound: somebody has deleted the whole adapter.
    """
    while spec.alias is not None:
        entry = adapters.get(spec.name)
        if entry.aliases.get(spec.alias) == record.version:
            return None
        try:
            reason = _objection(adapters, spec, record, entry)
        except AdapterNotFound:  # that version was deleted just now: look again
            continue
        if reason is not None:
            return reason
        try:
            etag = entry.etags.get(spec.alias)
            adapters.move_alias(spec.name, spec.alias, record.version, etag)
        except PreconditionFailed:  # somebody moved it meanwhile: compare with that one
            continue
    return None


def reason_to_keep_latest(spec: JobSpec, metrics: Mapping[str, Any]) -> str | None:
    """Return why `latest` is not to move to a version; None if it is to.

    A preset's rate is the product's choice: what it makes worse than the base must not answer
    under the bare name unasked. A job that gives the rate, or says `always`, has asked.

    Args:
        spec: of the job.
        metrics: of the version, those of the base under their own name among them.
    """
    if spec.move_latest == "always" or (spec.move_latest is None and spec.gives_rate):
        return None
    mine, theirs = metrics.get(_LOSS), dict(metrics.get(BASE) or {}).get(_LOSS)
    if not isinstance(mine, int | float) or not isinstance(theirs, int | float):
        return None
    if is_better(_LOSS, mine, theirs):
        return None
    return f"the held-out loss is {mine:.4g}, the base's own is {theirs:.4g}"


def _objection(
    adapters: Adapters, spec: JobSpec, record: Record, entry: AdapterEntry
) -> str | None:
    gate = spec.publish_if
    if gate is None:
        return None
    other = _other(adapters, gate, record, entry)
    if other is None:
        alias = gate.better_than.partition(":")[2]
        first = alias == spec.alias  # nothing stands there that could be better
        return None if first else f"{entry.name} has no alias {alias!r} to be better than"
    mine, theirs = _number(record.metrics, gate.metric), _number(other, gate.metric)
    if mine is None or theirs is None:
        whose = "the new version" if mine is None else gate.better_than
        return f"{whose} has no metric {gate.metric!r}"
    if is_better(gate.metric, mine, theirs):
        return None
    return f"{gate.metric} is {mine:.6g}, {gate.better_than}'s is {theirs:.6g}"


def _other(
    adapters: Adapters, gate: PublishGate, record: Record, entry: AdapterEntry
) -> Mapping[str, Any] | None:
    """Return the metrics to compare with; None if the alias is not there yet."""
    kind, _, alias = gate.better_than.partition(":")
    if kind == BASE:
        return dict(record.metrics.get(BASE, {}))
    version = entry.aliases.get(alias)
    return None if version is None else adapters.resolve(f"{entry.name}@{version}").metrics


def _number(metrics: Mapping[str, Any], name: str) -> float | None:
    value = metrics.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
