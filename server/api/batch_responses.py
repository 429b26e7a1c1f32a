"""Batches in OpenAI's shape."""

from dataclasses import asdict
from typing import Any

from registry import BatchRecord
from registry.batches.record import STATES
from server.api.bodies.batches import Batch, BatchFaults


def batch_object(record: BatchRecord) -> Batch:
    """Return a batch."""
    times: dict[str, Any] = {f"{state}_at": _at(record, state) for state in STATES[1:]}
    counts: Any = asdict(record.counts)
    return {
        "id": record.id,
        "object": "batch",
        "endpoint": record.spec.endpoint,
        "errors": _faults(record),
        "input_file_id": record.spec.input_file,
        "completion_window": "24h",
        "status": record.state,
        "output_file_id": record.output_file,
        "error_file_id": record.error_file,
        "created_at": int(record.created_at),
        "expires_at": int(record.expires_at),
        "in_progress_at": times["in_progress_at"],
        "finalizing_at": times["finalizing_at"],
        "completed_at": times["completed_at"],
        "failed_at": times["failed_at"],
        "expired_at": times["expired_at"],
        "cancelling_at": times["cancelling_at"],
        "cancelled_at": times["cancelled_at"],
        "request_counts": counts,
        "metadata": dict(record.spec.metadata),
        "overtone": {
            "base": record.spec.base_name,
            "server": record.owner or None,
            "attempts": record.fence,
        },
    }


def _at(record: BatchRecord, state: str) -> int | None:
    reached = record.reached_at.get(state)
    return None if reached is None else int(reached)


def _faults(record: BatchRecord) -> BatchFaults | None:
    if not record.faults:
        return None
    data: Any = [asdict(fault) for fault in record.faults]
    return {"object": "list", "data": data}
