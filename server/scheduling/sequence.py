"""One generation: its tokens, their pages in the cache, and how it goes on."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from server.scheduling.prefix_cache import Node
from server.scheduling.random_numbers import uniform
from server.scheduling.token_counts import TokenCounts

#: Preempted so often, a sequence is next given pages for its whole length, for good.
_MAX_PREEMPTIONS = 2


class Lease(Protocol):
    """A claim on an adapter's memory; held from acceptance to the last token."""

    @property
    def key(self) -> Hashable:
        """Return what the adapter computes: its digest and mode."""

    @property
    def is_ready(self) -> bool:
        """Return whether the adapter may be used in the next step."""


class TokenConstraint(Protocol):
    """What the next token of one sequence may be; the scheduler alone advances it.

    Failed steps and preemption leave it as it is: it depends on the generated tokens alone.
    """

    @property
    def fault(self) -> Exception | None:
        """Return why no token may follow; None as long as one may."""

    def allowed(self, may_end: bool) -> bytearray | None:
        """Return the tokens that may follow, one bit each from the lowest bit of a byte on.

        Safe to call again. The length is a multiple of four bytes and covers the vocabulary.
        None where no token may follow; `fault` says why.

        Args:
            may_end: whether an end token may be among them.
        """

    def advance(self, token: int) -> bool:
        """Enter the token that was chosen; return whether nothing but an end may follow it."""


class Constraint(Protocol):
    """What answers must be like; any number of sequences share one."""

    def begin(self, ends: frozenset[int], prompt: Sequence[int]) -> TokenConstraint:
        """Return the constraint of a sequence behind `prompt`, which `ends` may end."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen and when to stop.

    Args:
        max_tokens: at most this many are generated; with 0 the sequence ends with its first token,
            which the caller drops.
        temperature: 0 takes the likeliest token.
        top_p: mass of the likeliest tokens that are drawn from, in (0, 1].
        seed: of this sequence's own random numbers.
        stop_ids: tokens that end the generation.
        top_k: only so many of the likeliest tokens are drawn from; 0 for all.
        min_p: tokens less likely than this share of the likeliest one's probability are not drawn.
        typical_p: mass of the tokens that are drawn from, in the order in which their surprise is
            near the distribution's entropy (Meister et al. 2022, arXiv:2202.00666), in (0, 1].
        frequency_penalty: taken from a token's logit for each time that it was generated.
        presence_penalty: taken from the logit of a token that was generated at all.
        repetition_penalty: the logit of a token of the prompt or the answer is divided by it where
            positive, else multiplied by it (Keskar et al. 2019, arXiv:1909.05858).
        min_tokens: no token of `stop_ids` is chosen before so many were generated.
        num_logprobs: alternatives to report with each token; None reports no log-probabilities.
        logit_bias: token -> what is added to its logit.
        scored: position in the prompt -> the token whose log-probability behind it is wanted.
        num_scored_logprobs: alternatives to report with each scored token.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    stop_ids: frozenset[int] = frozenset()
    top_k: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    min_tokens: int = 0
    num_logprobs: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    scored: Mapping[int, int] = field(default_factory=dict)
    num_scored_logprobs: int = 0

    @cached_property
    def adjusts_logits(self) -> bool:
        """Return whether logits are changed before temperature, at any length."""
        return bool(self.logit_bias or self.min_tokens or self.penalises)

    @cached_property
    def penalises(self) -> bool:
        """Return whether it matters which tokens prompt and answer have."""
        return self.penalties != (1, 0, 0)

    @cached_property
    def penalties(self) -> tuple[float, float, float]:
        """Return the penalties of repetition, frequency and presence."""
        return self.repetition_penalty, self.frequency_penalty, self.presence_penalty

    @cached_property
    def bias_tokens(self) -> NDArray[np.int64]:
        """Return the tokens of `logit_bias`."""
        return np.array(list(self.logit_bias), dtype=np.int64)

    @cached_property
    def bias_values(self) -> NDArray[np.float64]:
        """Return what `logit_bias` adds, in the order of `bias_tokens`."""
        return np.array(list(self.logit_bias.values()), dtype=np.float64)

    @cached_property
    def stop_tokens(self) -> NDArray[np.int64]:
        """Return `stop_ids` in their order."""
        return np.array(sorted(self.stop_ids), dtype=np.int64)


@dataclass(frozen=True)
class Sampled:
    """A chosen token; log-probabilities in nats, alternatives from the likeliest on."""

    token: int
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class TokenScore:
    """What the base's distribution says of a given token.

    Args:
        logprob: in nats.
        rank: 1 for the likeliest token of the vocabulary; of equally likely ones the first id's.
        alternatives: the likeliest tokens and their log-probabilities, from the likeliest on.
    """

    logprob: float
    rank: int
    alternatives: tuple[tuple[int, float], ...] = ()

    @property
    def is_likeliest(self) -> bool:
        """Return whether no token is likelier."""
        return self.rank == 1


@dataclass(eq=False)
class TokenSequence:
    """A generation from acceptance to its end. The scheduler alone changes its progress.

    Args:
        prompt: token ids, at least one.
        sampling: how to choose and stop.
        lease: the adapter's claim; None for the base itself.
        arrived: when it was accepted, seconds on the runtime's clock.
        tenant: that it belongs to; tenants share the engine fairly and nothing else.
        deadline: when it fails unless it has ended, on the same clock; None for never.
        admitted: when it began to run.
        number: its number in the order of acceptance.
        chain: the kept prefix that it reads; the first of its `pages`.
        is_chained: whether its own pages may still be added to the kept prefix.
        num_cached: prompt tokens that were found instead of computed.
        num_preempted: how often it was preempted.
        scores: position -> what was found of the token that `sampling.scored` names there.
        border: the length beyond which the base's rotations of all positions differ
            (rotations.py); None if there is none.
        constraint: what its tokens must make; None for anything.
        is_background: a batch's: it runs in the room that live sequences leave.
        adapter: its adapter's name, for metrics; empty for the base.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    lease: Lease | None = None
    arrived: float = 0.0
    tenant: str = ""
    deadline: float | None = None
    admitted: float | None = None
    number: int = 0
    tokens: list[int] = field(default_factory=list)
    num_computed: int = 0
    pages: list[int] = field(default_factory=list)
    chain: list[Node] = field(default_factory=list)
    is_chained: bool = True
    num_cached: int = 0
    num_preempted: int = 0
    scores: dict[int, TokenScore] = field(default_factory=dict)
    finish_reason: str | None = None
    border: int | None = None
    constraint: TokenConstraint | None = None
    is_background: bool = False
    adapter: str = ""

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)
        self._counts: TokenCounts | None = None

    def enter(self, token: int) -> None:
        """Append a generated token, and set the reason to finish if it is the last one."""
        self.tokens.append(token)
        if token in self.sampling.stop_ids or self._completes(token):
            self.finish_reason = "stop"
        elif self.num_generated >= self.sampling.max_tokens:
            self.finish_reason = "length"

    def _completes(self, token: int) -> bool:
        """Enter a token into the constraint; return whether nothing may follow it."""
        return self.constraint is not None and self.constraint.advance(token)

    def random_number(self) -> float:
        """Return the number in [0, 1) that its next token is drawn with; the same if asked again.

        Those of one seed are another each time a token was generated (random_numbers.py).
        """
        return uniform(self.sampling.seed, self.num_generated)

    def token_counts(self) -> TokenCounts:
        """Return the tokens that penalties are for, and how often each was generated.

        Those of the prompt are among them if the repetition penalty needs them.
        """
        if self._counts is None:
            prompt = len(self.prompt)
            start = 0 if self.sampling.repetition_penalty != 1 else prompt
            self._counts = TokenCounts(start, answer=prompt)
        self._counts.follow(self.tokens)
        return self._counts

    @property
    def adjusts_logits(self) -> bool:
        """Return whether its next token is chosen from other logits than the model's."""
        return self.constraint is not None or self.sampling.adjusts_logits

    @property
    def may_end(self) -> bool:
        """Return whether its next token may be one that ends it."""
        return self.num_generated >= self.sampling.min_tokens

    @property
    def namespace(self) -> Hashable:
        """Return the tenant, and what keys and values depend on beside tokens."""
        return self.tenant, None if self.lease is None else self.lease.key, self.is_long

    @property
    def is_long(self) -> bool:
        """Return whether its text is longer than where the base's rotations change."""
        return self.border is not None and len(self.tokens) > self.border

    @property
    def has_just_grown_long(self) -> bool:
        """Return whether its newest token makes the keys of all others stale."""
        return self.border is not None and len(self.tokens) == self.border + 1

    @property
    def num_together(self) -> int:
        """Return how many tokens are computed in pieces: the prompt, or all up to the border."""
        if self.border is None or not self.is_long:
            return len(self.prompt)
        return max(len(self.prompt), self.border + 1)

    @property
    def is_prefilling(self) -> bool:
        """Return whether tokens that are computed in pieces are left."""
        return self.num_computed < self.num_together

    @property
    def is_solid(self) -> bool:
        """Return whether it was preempted so often that it must not be again."""
        return self.num_preempted >= _MAX_PREEMPTIONS

    @property
    def num_generated(self) -> int:
        """Return how many tokens were generated so far."""
        return len(self.tokens) - len(self.prompt)

    @property
    def num_asked_for(self) -> int:
        """Return how many generated tokens are the answer's: none where only scores are wanted."""
        return min(self.num_generated, self.sampling.max_tokens)

    @property
    def max_length(self) -> int:
        """Return the most tokens that the cache will hold of it."""
        return len(self.prompt) + self.sampling.max_tokens

    @property
    def is_ready(self) -> bool:
        """Return whether its adapter is in memory."""
        return self.lease is None or self.lease.is_ready
