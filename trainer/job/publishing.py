"""Publishes a finished job's folder as a version; once, however often it is repeated."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from adapters_core.base.spec import BaseSpec
from adapters_core.format.read import read_adapter
from adapters_core.format.write import CONFIG_NAME, WEIGHTS_NAME
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

#: Keys of a version's metadata: how it was made, and the names of its labels.
TRAINING, LABELS = "training", "labels"


def publish_trained(
    registry: Registry, fence: Fence, spec: JobSpec, base: BaseSpec, trained: Trained, now: float
) -> Record:
    """Check the finished adapter as any upload is checked, publish it, and return its record.

    Raises:
        AdapterError: it does not fit the base.
        FenceLost: another worker has the job by now.
    """
    file = trained.folder / WEIGHTS_NAME
    config = (trained.folder / CONFIG_NAME).read_bytes()
    adapter = read_adapter(file, config, base)
    metrics = {**_finite(trained.metrics), BASE: _finite(trained.base_metrics)}
    new = NewVersion(
        name=spec.stored_name,
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
    """Return the caller's metadata, with all that is needed to make the adapter again."""
    settings = json.loads(json.dumps(asdict(spec)))
    own = settings.pop("metadata")
    if trained.labels is not None:
        own[LABELS] = list(trained.labels)
    made = {
        "job": spec.id,
        "spec": settings,
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
    except InvalidArgument:  # too large: a job's spec without the details always fits
        return {**own, TRAINING: made}
    return whole


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
