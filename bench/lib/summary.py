"""Figures of a run: percentiles, throughput, goodput, fairness. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.lib.load_runner import WRONG_ADAPTER, Model, Record, Seen

#: Adapters with fewer answers are left out of the fairness.
_LEAST_ANSWERS = 3
_MOST_SHOWN = 100
_PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Promise:
    """The promise to a caller: seconds to the first token, and between tokens on average."""

    ttft_s: float
    itl_s: float

    def is_kept(self, seen: Seen) -> bool:
        """Return whether an answer was right and in time."""
        if seen.code is not None or ttft(seen) > self.ttft_s:
            return False
        between = gaps(seen)
        return not between or sum(between) / len(between) <= self.itl_s


def ttft(seen: Seen) -> float:
    """Return the seconds from when the request was due to its first token."""
    return seen.tokens_s[0] - seen.due_s


def gaps(seen: Seen) -> list[float]:
    """Return the seconds between one token and the next."""
    return [b - a for a, b in zip(seen.tokens_s, seen.tokens_s[1:], strict=False)]


def spread(values: Iterable[float]) -> dict[str, float] | None:
    """Return mean, percentiles (linear between ranks) and maximum; None of nothing."""
    found = np.fromiter(values, float)
    if not found.size:
        return None
    marks = np.percentile(found, _PERCENTILES)
    named = {f"p{p}": float(mark) for p, mark in zip(_PERCENTILES, marks, strict=True)}
    return {"mean": float(found.mean()), **named, "max": float(found.max())}


def jain(values: Sequence[float]) -> float | None:
    """Return Jain's index: 1 if all are equal, 1/n if one has everything; None of nothing."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else None


def summary(
    record: Record, models: Sequence[Model], skew: float, promise: Promise
) -> dict[str, Any]:
    """Return all figures of a run.

    Latencies are those of whole and right answers. Throughput counts what came within the window.
    """
    good = [seen for seen in record.seen if seen.code is None]
    window = record.window_s or 1e-9
    kept = sum(promise.is_kept(seen) for seen in record.seen)
    sent = len(record.seen)
    tokens = sum(at <= record.window_s for seen in record.seen for at in seen.tokens_s)
    answered = [seen for seen in good if seen.done_s <= record.window_s]
    return {
        "requests": {
            "planned": sent + record.dropped,
            "dropped": record.dropped,
            "sent": sent,
            "completed": len(good),
            "failed": sent - len(good),
            "errors": dict(Counter(seen.code for seen in record.seen if seen.code)),
        },
        "window_s": record.window_s,
        "throughput": {
            "requests_s": len(answered) / window,
            "output_tokens_s": tokens / window,
            "prompt_tokens_s": sum(seen.planned.prompt_tokens for seen in answered) / window,
        },
        "ttft_s": spread(map(ttft, good)),
        "itl_s": spread(gap for seen in good for gap in gaps(seen)),
        "latency_s": spread(seen.done_s - seen.due_s for seen in good),
        "late_s": spread(seen.sent_s - seen.due_s for seen in record.seen),
        "goodput": {
            "slo_ttft_s": promise.ttft_s,
            "slo_itl_s": promise.itl_s,
            "share": kept / max(1, sent + record.dropped),
            "requests_s": sum(promise.is_kept(seen) for seen in answered) / window,
        },
        "fairness": _fairness(good, models, skew, window),
        "wrong_adapter": sum(seen.code == WRONG_ADAPTER for seen in record.seen),
    }


def _fairness(
    good: Sequence[Seen], models: Sequence[Model], skew: float, window: float
) -> dict[str, Any]:
    """Return Jain's index over the adapters, and the latency of the busiest ones."""
    by_adapter: dict[int, list[Seen]] = defaultdict(list)
    for seen in good:
        by_adapter[seen.planned.adapter].append(seen)
    normal = {adapter: _seconds_a_token(seens) for adapter, seens in by_adapter.items()}
    known = [normal[a] for a, seens in by_adapter.items() if len(seens) >= _LEAST_ANSWERS]
    tokens = {a: sum(len(seen.tokens_s) for seen in seens) for a, seens in by_adapter.items()}
    busiest = sorted(by_adapter, key=lambda adapter: -len(by_adapter[adapter]))
    return {
        "adapters_answered": len(by_adapter),
        "jain_latency": jain(known),
        # Tokens say something about fairness only where all are asked equally often.
        "jain_tokens": jain(list(tokens.values())) if skew == 0 else None,
        "busiest": [
            {
                "adapter": models[adapter].name,
                "requests": len(by_adapter[adapter]),
                "tokens_s": tokens[adapter] / window,
                "seconds_a_token": normal[adapter],
                "ttft_s": float(np.mean([ttft(seen) for seen in by_adapter[adapter]])),
            }
            for adapter in busiest[:_MOST_SHOWN]
        ],
    }


def _seconds_a_token(seens: Sequence[Seen]) -> float:
    """Return the mean latency of an answer over its tokens."""
    return float(np.mean([(seen.done_s - seen.due_s) / len(seen.tokens_s) for seen in seens]))
