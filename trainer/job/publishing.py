"""From a job's finished folder to a version in the registry: once, however often it is tried."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from adapters_core.adapter import read_adapter
from adapters_core.base import BaseSpec
from adapters_core.export import CONFIG_NAME, WEIGHTS_NAME
from registry.adapters.publish import publish
from registry.adapters.records import NewVersion, Record
from registry.common.fence import Fence
from registry.common.notes import check_notes
from registry.connect import Registry
from registry.errors import InvalidArgument
from registry.jobs.comparison import BASE
from registry.jobs.spec import JobSpec
from trainer.interfaces import Trained
from trainer.job.alias_gate import reason_to_keep_latest

#: Under these names a version's metadata says how it was made, and what its answers are called.
TRAINING, LABELS = "training", "labels"


def publish_trained(
    registry: Registry, fence: Fence, spec: JobSpec, base: BaseSpec, trained: Trained, now: float
) -> Record:
    """Check the finished adapter as any upload is checked, publish it, and return its record.

    Raises:
        AdapterError: it is not what the base takes.
        FenceLost: this attempt does not hold the job any more.
    """
    file = trained.folder / WEIGHTS_NAME
    config = (trained.folder / CONFIG_NAME).read_bytes()
    adapter = read_adapter(file, config, base)
    metrics = {**_finite(trained.metrics), BASE: _finite(trained.base_metrics)}
    new = NewVersion(
        name=spec.name,
        description=adapter.description,
        created_at=int(now),
        created_by=spec.id,
        metadata=metadata_of(spec, trained),
        metrics=metrics,
        keeps_latest=reason_to_keep_latest(spec, metrics) is not None,
        fence=fence,
    )
    record, _ = publish(registry.adapters, registry.blobs, new, file, config)
    return record


def metadata_of(spec: JobSpec, trained: Trained) -> dict[str, Any]:
    """Return the caller's metadata, and beside it all that is needed to make the adapter again."""
    words = json.loads(json.dumps(asdict(spec)))
    own = words.pop("metadata")
    if trained.labels is not None:
        own[LABELS] = list(trained.labels)
    made = {
        "job": spec.id,
        "spec": words,
        "data_digest": trained.data_digest,
        "method": trained.method,
        "method_config": trained.method_config,
        "seed": trained.seed,
        "steps": trained.steps,
        "code_version": trained.code_version,
    }
    whole = {**own, TRAINING: {**made, "details": trained.details}}
    try:
        check_notes(whole, {})
    except InvalidArgument:  # a job's spec alone always fits, and nothing trained is thrown away
        return {**own, TRAINING: made}
    return whole


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
