"""What places a request on a replica: by chance, by queues, by the adapter, or by both.

Power of two choices: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.
Hashing is by highest random weight (Thaler and Ravishankar, 1998): a replica that leaves moves only
its own adapters. Its spill-over bounds each replica's load as Mirrokni, Thorup and Zadimoghaddam do
in "Consistent Hashing with Bounded Loads", 2018.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import NamedTuple

import numpy as np

#: The adapter and each replica's open requests -> the replica.
Place = Callable[[int, Sequence[int]], int]
#: A replica takes a request of an adapter it is home to below so many times the mean load.
_BOUND = 1.25

Homes = Sequence[Sequence[int]]


def homes_of(adapters: int, replicas: int) -> Homes:
    """Return each adapter's replicas, the preferred first: by descending hash of the pair."""
    pairs = np.arange(adapters, dtype=np.uint64)[:, None] << np.uint64(32)
    weights = _mixed(pairs + np.arange(replicas, dtype=np.uint64))
    found: list[list[int]] = np.argsort(weights, axis=1)[:, ::-1].tolist()
    return found


def _mixed(keys: np.ndarray) -> np.ndarray:
    """Return 64 well-mixed bits of each key: SplitMix64's output function (Steele et al., 2014)."""
    mixed = (keys + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def any_replica(random: Random, adapter: int, open_requests: Sequence[int]) -> int:
    """Return a replica by chance."""
    return int(random.random() * len(open_requests))


def two_choices(random: Random, adapter: int, open_requests: Sequence[int]) -> int:
    """Return the one of two replicas by chance that has fewer open requests."""
    one, other = any_replica(random, adapter, open_requests), any_replica(random, 0, open_requests)
    return one if open_requests[one] <= open_requests[other] else other


def hashed(homes: Homes, adapter: int, open_requests: Sequence[int]) -> int:
    """Return the adapter's first home, whatever its queue."""
    return homes[adapter][0]


def spilling(homes: Homes, adapter: int, open_requests: Sequence[int]) -> int:
    """Return the adapter's first home whose queue is below 1.25 times the mean."""
    limit = math.ceil(_BOUND * (sum(open_requests) + 1) / len(open_requests))
    return next(home for home in homes[adapter] if open_requests[home] < limit)


class Policy(NamedTuple):
    """How requests are placed, and whether every replica holds every adapter beforehand."""

    place: Place
    holds_all: bool = False


def policies(homes: Homes, seed: int) -> dict[str, Policy]:
    """Return all policies by name; each has random numbers of its own."""
    return {
        "any replica": Policy(partial(any_replica, Random(seed))),
        "two choices": Policy(partial(two_choices, Random(seed))),
        "hashing": Policy(partial(hashed, homes)),
        "hashing, spill-over": Policy(partial(spilling, homes)),
        "two choices, all on all": Policy(partial(two_choices, Random(seed)), holds_all=True),
    }
