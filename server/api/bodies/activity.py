"""What a server does, adapter by adapter."""

from typing import Literal

from typing_extensions import TypedDict


class ActivityCounts(TypedDict):
    """Counts since the server, or the adapter, was first seen: two of them make rates.

    Args:
        requests: sequences that were accepted, or requests of a base that answers in one pass.
        prompt_tokens: of them.
        generated_tokens: so far.
        first_tokens: how many first tokens came within each of `first_token_bounds_s`, and later.
    """

    requests: int
    prompt_tokens: int
    generated_tokens: int
    first_tokens: list[int]


class AdapterActivity(ActivityCounts):
    """An adapter, or the base.

    Args:
        adapter: its name; null for the base.
        mode: of its last request; null for the base.
        tiers: where it is in memory; empty where it must be read from its file.
        running: its sequences that hold cache pages.
        waiting: its sequences that do not yet.
    """

    adapter: str | None
    mode: Literal["factored", "merged"] | None
    tiers: list[Literal["device", "merged", "host"]]
    running: int
    waiting: int


class CacheActivity(TypedDict):
    """A cache of adapters.

    Args:
        entries: adapters in it.
        bytes: of them.
        hits: requests that found their adapter, since the start.
        misses: requests that had to load it.
        evictions: adapters that made room for others.
    """

    entries: int
    bytes: int
    hits: int
    misses: int
    evictions: int


class Activity(ActivityCounts):
    """What a server does now.

    Args:
        time: of the counts, on the server's clock: seconds that only go forward.
        base: its name.
        running: sequences that hold cache pages.
        waiting: sequences or inputs that wait.
        max_running: sequences that run at a time.
        kv_usage: share of the cache that sequences hold, 0 to 1.
        caches: by name: `coefficients`, `host`, `merged`.
        first_token_bounds_s: upper bounds of `first_tokens`, in seconds.
        data: the adapters that were used last, the last one first.
    """

    object: Literal["activity"]
    time: float
    base: str
    running: int
    waiting: int
    max_running: int
    kv_usage: float
    caches: dict[str, CacheActivity]
    first_token_bounds_s: list[float]
    data: list[AdapterActivity]
