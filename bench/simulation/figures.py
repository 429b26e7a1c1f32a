"""Figures of a simulated run. Pure."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.simulation.replica import Replica, Request

#: Share of the requests that come first and count in no figure but the loads: the queues fill.
_SETTLING = 0.25


def figures(served: Sequence[Request], replicas: Sequence[Replica]) -> dict[str, Any]:
    """Return first tokens, tokens a second while requests came, cold loads and imbalance.

    Imbalance: tokens of the replica that was given most, over the mean.
    """
    counted = served[int(_SETTLING * len(served)) :]
    waits = [one.first_token_s - one.planned.at_s for one in counted]
    p50, p95 = np.percentile(waits, (50, 95))
    begun, end = counted[0].planned.at_s, counted[-1].planned.at_s
    steps = [step for replica in replicas for step in replica.tokens]
    tokens = sum(number for at, number in steps if begun <= at <= end)
    given = np.zeros(len(replicas))
    for one in served:
        given[one.replica] += one.planned.prompt_tokens + one.planned.max_tokens
    return {
        "first_token_p50_s": float(p50),
        "first_token_p95_s": float(p95),
        "tokens_s": tokens / max(end - begun, 1e-9),
        "cold_loads_per_request": sum(replica.loads for replica in replicas) / len(served),
        "imbalance": float(given.max() / given.mean()),
    }
