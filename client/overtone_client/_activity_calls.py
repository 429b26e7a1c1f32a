"""The request about a server's activity, and the parser of its answer."""

from collections.abc import Mapping
from typing import Any

import httpx2

from ._requests import Call
from ._requests import _present as present
from ._responses import understood
from .activity_types import Activity, AdapterActivity, CacheActivity, Counts


def activity(limit: int | None) -> Call:
    """What a server does now."""
    return Call("GET", "/metrics/adapters", params=present({"limit": limit}))


def parse(response: httpx2.Response) -> Activity:
    """What a server does now."""
    return understood(str(response.url), _to_activity, response.json)


def _to_activity(body: Mapping[str, Any]) -> Activity:
    return Activity(
        time=float(body["time"]),
        base=str(body["base"]),
        running=int(body["running"]),
        waiting=int(body["waiting"]),
        max_running=int(body["max_running"]),
        kv_usage=float(body["kv_usage"]),
        counts=_to_counts(body),
        bounds_s=tuple(map(float, body["first_token_bounds_s"])),
        caches={name: _to_cache(cache) for name, cache in body["caches"].items()},
        adapters=tuple(map(_to_adapter, body["data"])),
        raw=body,
    )


def _to_counts(body: Mapping[str, Any]) -> Counts:
    return Counts(
        int(body["requests"]),
        int(body["prompt_tokens"]),
        int(body["generated_tokens"]),
        tuple(map(int, body["first_tokens"])),
    )


def _to_cache(body: Mapping[str, Any]) -> CacheActivity:
    names = ("entries", "bytes", "hits", "misses", "evictions")
    return CacheActivity(*(int(body[name]) for name in names))


def _to_adapter(body: Mapping[str, Any]) -> AdapterActivity:
    return AdapterActivity(
        adapter=body["adapter"],
        mode=body["mode"],
        tiers=tuple(map(str, body["tiers"])),
        running=int(body["running"]),
        waiting=int(body["waiting"]),
        counts=_to_counts(body),
    )
