"""Whether an alias and `latest` may move to a new version; moves the alias."""

import math
from collections.abc import Mapping
from typing import Any

from registry.adapters.adapters import AdapterEntry, Adapters
from registry.adapters.records import Record
from registry.common.names import Reference
from registry.common.spaces import plain
from registry.errors import AdapterNotFound, PreconditionFailed
from registry.jobs.comparison import BASE, is_better, is_better_than_base, losses
from registry.jobs.spec import JobSpec, PublishGate


def open_alias(adapters: Adapters, spec: JobSpec, record: Record) -> str | None:
    """Move the job's alias to its version if its gate allows it; twice is harmless.

    Returns:
        why it was not moved; None if it was, or if there is no alias.

    Raises:
        AdapterNotFound: the whole adapter was deleted.
    """
    while spec.alias is not None:
        entry = adapters.get(spec.stored_name)
        if entry.aliases.get(spec.alias) == record.version:
            return None
        try:
            reason = _objection(adapters, spec, record, entry)
        except AdapterNotFound:  # the version to compare with was deleted: read the alias again
            continue
        if reason is not None:
            return reason
        try:
            etag = entry.etags.get(spec.alias)
            adapters.move_alias(spec.stored_name, spec.alias, record.version, etag)
        except PreconditionFailed:  # the alias moved in between: compare with its new version
            continue
    return None


def reason_to_keep_latest(spec: JobSpec, metrics: Mapping[str, Any]) -> str | None:
    """Return why `latest` stays at an earlier version; None if it moves to the new one.

    A preset's rate is the product's choice: a version that it makes worse than the base must not
    become the default. A job that gives a rate, or `move_latest: always`, has chosen itself.

    Args:
        spec: of the job.
        metrics: of the version; the base's own are in them under `BASE`.
    """
    if spec.move_latest == "always" or (spec.move_latest is None and spec.gives_rate):
        return None
    both = losses(metrics)
    if both is None or is_better_than_base(metrics):
        return None
    return f"the held-out loss is {both[0]:.4g}, the base's own is {both[1]:.4g}"


def _objection(
    adapters: Adapters, spec: JobSpec, record: Record, entry: AdapterEntry
) -> str | None:
    gate = spec.publish_if
    if gate is None:
        return None
    other = _other(adapters, gate, record, entry)
    if other is None:
        alias = gate.better_than.partition(":")[2]
        is_first = alias == spec.alias  # the alias is new: there is no version to compare with
        return None if is_first else f"{plain(entry.name)} has no alias {alias!r} to compare with"
    new, old = _number(record.metrics, gate.metric), _number(other, gate.metric)
    if new is None or old is None:
        version = "the new version" if new is None else gate.better_than
        return f"{version} has no metric {gate.metric!r}"
    if is_better(gate.metric, new, old):
        return None
    return f"{gate.metric} is {new:.6g}, {gate.better_than}'s is {old:.6g}"


def _other(
    adapters: Adapters, gate: PublishGate, record: Record, entry: AdapterEntry
) -> Mapping[str, Any] | None:
    """Return the metrics to compare with; None if the alias is not there yet."""
    kind, _, alias = gate.better_than.partition(":")
    if kind == BASE:
        return dict(record.metrics.get(BASE, {}))
    version = entry.aliases.get(alias)
    if version is None:
        return None
    return adapters.resolve(Reference(entry.name, "version", str(version))).metrics


def _number(metrics: Mapping[str, Any], name: str) -> float | None:
    value = metrics.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
