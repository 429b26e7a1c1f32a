"""What the server's answer about its activity becomes; as types.py, with the JSON under `raw`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Counts:
    """Counts since the server, or an adapter, was first seen: two of them make rates.

    Args:
        requests: that were accepted.
        prompt_tokens: of them.
        generated_tokens: so far.
        first_tokens: how many first tokens came within each bound, and later.
    """

    requests: int
    prompt_tokens: int
    generated_tokens: int
    first_tokens: Sequence[int]


@dataclass(frozen=True)
class AdapterActivity:
    """An adapter, or the base.

    Args:
        adapter: its name; None for the base.
        mode: of its last request: `factored` or `merged`; None for the base.
        tiers: where it is in memory: `merged`, `device`, `host`.
        running: its sequences that hold cache pages.
        waiting: its sequences that do not yet.
        counts: since it was first seen.
    """

    adapter: str | None
    mode: str | None
    tiers: tuple[str, ...]
    running: int
    waiting: int
    counts: Counts


@dataclass(frozen=True)
class CacheActivity:
    """A cache of adapters: what is in it, and what was found in it since the start."""

    entries: int
    bytes: int
    hits: int
    misses: int
    evictions: int


@dataclass(frozen=True)
class Activity:
    """What a server does at a moment.

    Args:
        time: seconds on the server's clock.
        base: its name.
        running: sequences that hold cache pages.
        waiting: sequences or inputs that wait.
        max_running: sequences that run at a time.
        kv_usage: share of the cache that sequences hold, 0 to 1.
        counts: of all together.
        bounds_s: upper bounds of `first_tokens` everywhere, in seconds.
        caches: by name: `coefficients`, `host`, `merged`.
        adapters: those that were used last, the last one first.
    """

    time: float
    base: str
    running: int
    waiting: int
    max_running: int
    kv_usage: float
    counts: Counts
    bounds_s: Sequence[float]
    caches: Mapping[str, CacheActivity]
    adapters: Sequence[AdapterActivity]
    raw: Mapping[str, Any] = field(repr=False, compare=False)
