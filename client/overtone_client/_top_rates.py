"""From two looks at a server's activity to rates: what `overtone top` shows. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .activity_types import Activity, AdapterActivity, CacheActivity, Counts

_NONE = Counts(0, 0, 0, ())


@dataclass(frozen=True)
class Rates:
    """What happened between two looks.

    Args:
        requests_per_s: that were accepted.
        prompt_tokens_per_s: of them.
        generated_tokens_per_s: of all that ran.
        first_token_p95_s: 19 of 20 first tokens came sooner; None where there was none.
    """

    requests_per_s: float
    prompt_tokens_per_s: float
    generated_tokens_per_s: float
    first_token_p95_s: float | None


@dataclass(frozen=True)
class Row:
    """One adapter, or the base (`adapter` is None), between two looks and at the second."""

    adapter: str | None
    mode: str | None
    tiers: tuple[str, ...]
    running: int
    waiting: int
    rates: Rates


@dataclass(frozen=True)
class Picture:
    """A server between two looks.

    Args:
        now: the second look.
        seconds: between them.
        rates: of all together.
        hit_shares: by cache, of the requests between the looks; None where there was none.
        rows: in the order that was asked for.
    """

    now: Activity
    seconds: float
    rates: Rates
    hit_shares: Mapping[str, float | None]
    rows: Sequence[Row]

    @property
    def document(self) -> dict[str, Any]:
        """It as JSON."""
        now = self.now
        caches = {
            name: {**asdict(cache), "hit_share": self.hit_shares[name]}
            for name, cache in now.caches.items()
        }
        return {
            "object": "top",
            "base": now.base,
            "seconds": round(self.seconds, 3),
            "running": now.running,
            "waiting": now.waiting,
            "max_running": now.max_running,
            "kv_usage": now.kv_usage,
            **asdict(self.rates),
            "caches": caches,
            "data": [{**_flat(row), **asdict(row.rates)} for row in self.rows],
        }


SORTS: Mapping[str, Callable[[Row], Any]] = {
    "requests": lambda row: (-row.rates.requests_per_s, row.adapter or ""),
    "tokens": lambda row: (-row.rates.generated_tokens_per_s, row.adapter or ""),
    "first-token": lambda row: (-(row.rates.first_token_p95_s or 0), row.adapter or ""),
    "running": lambda row: (-row.running, -row.waiting, row.adapter or ""),
    "waiting": lambda row: (-row.waiting, -row.running, row.adapter or ""),
    "name": lambda row: row.adapter or "",
}


def picture(before: Activity, now: Activity, sort: str) -> Picture:
    """What happened between two looks at one server; `sort` is one of `SORTS`."""
    seconds = max(now.time - before.time, 1e-3)
    known = {one.adapter: one.counts for one in before.adapters}

    def row(one: AdapterActivity) -> Row:
        start = known.get(one.adapter, _NONE)
        rates = _rates(start, one.counts, seconds, now.bounds_s)
        return Row(one.adapter, one.mode, one.tiers, one.running, one.waiting, rates)

    return Picture(
        now=now,
        seconds=seconds,
        rates=_rates(before.counts, now.counts, seconds, now.bounds_s),
        hit_shares={n: _hit_share(before.caches.get(n), c) for n, c in now.caches.items()},
        rows=sorted(map(row, now.adapters), key=SORTS[sort]),
    )


def quantile(counts: Sequence[int], bounds: Sequence[float], share: float) -> float | None:
    """A quantile of times that were counted by their upper bounds, evenly within each.

    Above the last bound it is that bound. None where nothing was counted.
    """
    wanted, below, lower = share * sum(counts), 0, 0.0
    if not wanted:
        return None
    for count, upper in zip(counts, bounds, strict=False):
        if below + count >= wanted:
            return lower + (upper - lower) * (wanted - below) / count
        below, lower = below + count, upper
    return lower


def _rates(start: Counts, end: Counts, seconds: float, bounds: Sequence[float]) -> Rates:
    if start.requests > end.requests:  # the server was started, or had forgotten the adapter
        start = _NONE
    is_alike = len(start.first_tokens) == len(end.first_tokens)  # else another version's bounds
    earlier = start.first_tokens if is_alike else [0] * len(end.first_tokens)
    first = [max(0, b - a) for a, b in zip(earlier, end.first_tokens, strict=True)]
    return Rates(
        (end.requests - start.requests) / seconds,
        (end.prompt_tokens - start.prompt_tokens) / seconds,
        max(0, end.generated_tokens - start.generated_tokens) / seconds,
        quantile(first, bounds, 0.95),
    )


def _hit_share(before: CacheActivity | None, now: CacheActivity) -> float | None:
    hits = now.hits - (before.hits if before else 0)
    misses = now.misses - (before.misses if before else 0)
    return hits / (hits + misses) if hits + misses > 0 and hits >= 0 else None


def _flat(row: Row) -> dict[str, Any]:
    return {
        "adapter": row.adapter,
        "mode": row.mode,
        "tiers": list(row.tiers),
        "running": row.running,
        "waiting": row.waiting,
    }
