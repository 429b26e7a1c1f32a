"""One running generation: its tokens, where they lie in the cache, and what it still wants."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Protocol


class Lease(Protocol):
    """A claim on an adapter's memory; held from acceptance to the last token."""

    @property
    def is_ready(self) -> bool:
        """Return whether the adapter may be used in the next step."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen and when to stop.

    Args:
        max_tokens: at most this many are generated.
        temperature: 0 takes the likeliest token.
        top_p: mass of the likeliest tokens that are drawn from, in (0, 1].
        seed: of this sequence's own random numbers.
        stop_ids: tokens that end the generation.
        num_logprobs: alternatives to report with each token; None reports no log-probabilities.
        logit_bias: token -> what is added to its logit.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    stop_ids: frozenset[int] = frozenset()
    num_logprobs: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sampled:
    """A chosen token; log-probabilities in nats, alternatives from the likeliest on."""

    token: int
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(eq=False)
class Sequence:
    """A generation from acceptance to its end. The scheduler alone changes its progress.

    Args:
        prompt: token ids, at least one.
        sampling: how to choose and stop.
        lease: the adapter's claim; None for the base itself.
        arrived: when it was accepted, seconds on the runtime's clock.
        admitted: when it began to run.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    lease: Lease | None = None
    arrived: float = 0.0
    admitted: float | None = None
    tokens: list[int] = field(default_factory=list)
    num_computed: int = 0
    pages: list[int] = field(default_factory=list)
    finish_reason: str | None = None

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)
        self.random = Random(self.sampling.seed)

    @property
    def num_generated(self) -> int:
        """Return how many tokens were generated so far."""
        return len(self.tokens) - len(self.prompt)

    @property
    def max_length(self) -> int:
        """Return the most tokens that will ever stand in the cache."""
        return len(self.prompt) + self.sampling.max_tokens

    @property
    def is_ready(self) -> bool:
        """Return whether its adapter is in memory."""
        return self.lease is None or self.lease.is_ready
