"""GET /metrics/adapters: what is hot, resident and slow now, adapter by adapter."""

import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from server.api.bodies.activity import Activity, ActivityCounts, AdapterActivity, CacheActivity
from server.api.describe import INVALID, SERVES, answer, describe
from server.api.request import service_of
from server.service import Service
from server.telemetry.activity import BOUNDS_S, MAX_ADAPTERS, Counts, Used
from server.telemetry.observer import CacheStats, OpenSequences

router = APIRouter(tags=["operations"])

_NONE = OpenSequences()
Limit = Annotated[int, Query(ge=0, le=MAX_ADAPTERS, description="Adapters that are listed.")]


@router.get(
    "/metrics/adapters",
    **describe("getActivity", answer(Activity), errors=(*SERVES, *INVALID), scopes=("metrics",)),
)
async def activity(request: Request, limit: Limit = 200) -> dict[str, Any]:
    """Return counts and residency of the adapters that were used last, for `overtone top`."""
    service = service_of(request)
    total, used = service.metrics.activity.latest(limit)
    load, sequences = service.serving.worker.load(), service.serving.worker.open_sequences()
    generated = sum(each.generated for each in sequences.values())
    return {
        "object": "activity",
        "time": time.monotonic(),
        "base": service.base.spec.name,
        "running": load.num_running,
        "waiting": load.num_waiting,
        "max_running": service.settings.max_running,
        "kv_usage": load.kv_usage,
        "caches": {each.cache: _cache(each) for each in _caches(service)},
        "first_token_bounds_s": list(BOUNDS_S),
        **_counts(total, generated),
        "data": _rows(service, used, sequences),
    }


def _rows(
    service: Service, used: Mapping[str, Used], sequences: Mapping[str, OpenSequences]
) -> list[AdapterActivity]:
    return [_row(service, name, one, sequences.get(name, _NONE)) for name, one in used.items()]


def _row(service: Service, name: str, used: Used, open_: OpenSequences) -> AdapterActivity:
    return {
        "adapter": name or None,
        "mode": used.mode,  # type: ignore[typeddict-item]
        "tiers": service.loader.memory.tiers_of(used.digest) if used.digest else [],
        "running": open_.running,
        "waiting": open_.waiting,
        **_counts(used.counts, open_.generated),
    }


def _counts(counts: Counts, generating: int) -> ActivityCounts:
    return {
        "requests": counts.requests,
        "prompt_tokens": counts.prompt_tokens,
        "generated_tokens": counts.generated_tokens + generating,
        "first_tokens": counts.first_tokens,
    }


def _caches(service: Service) -> list[CacheStats]:
    memory = service.loader.memory
    return [*memory.stats("factored"), *memory.stats("merged")]


def _cache(stats: CacheStats) -> CacheActivity:
    return {
        "entries": stats.num_entries,
        "bytes": stats.size_bytes,
        "hits": stats.hits,
        "misses": stats.misses,
        "evictions": stats.evictions,
    }
