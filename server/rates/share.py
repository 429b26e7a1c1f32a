"""What this server holds of one tenant's rates: taken in advance, spent here. Pure.

Amounts are counted as `registry.quotas.rates.Amounts` has them: requests, tokens, permits to run.
"""

import math
from dataclasses import dataclass, field

from registry.common.limits import RATES, Limits
from registry.quotas.rates import Amounts, Ask, Granted

#: A server takes so much of a rate, or of the permits, beyond what a request needs.
_PIECE = 1 / 20
_MINUTE_S = 60.0
_NEARLY = 1e-6


@dataclass(frozen=True)
class Standing:
    """How much of one rate a tenant has used, as far as this server knows.

    Args:
        limit: what may be used at once, and comes back within a minute.
        remaining: of it.
        reset_s: until all of it is back.
    """

    limit: int
    remaining: int
    reset_s: float


@dataclass
class Part:
    """A server's part of one rate.

    Args:
        held: may be spent here; below 0: was spent without having been taken.
        left: in the registry's bucket, when it was heard last; None before.
    """

    held: float = 0.0
    left: float | None = None


@dataclass
class Share:
    """A server's share of one tenant's rates.

    Args:
        heard_at: when the registry was asked last, or the share filled without it; seconds.
        used_at: when a request was admitted last.
        running: requests that are open here.
        permits: to run, that this server holds.
        permits_elsewhere: that other servers held, when the registry was heard last.
        num_servers: that shared the tenant then.
        is_new: nothing was heard or filled yet.
        is_alone: the registry is away, and the parts fill by themselves.
    """

    heard_at: float
    used_at: float
    requests: Part = field(default_factory=Part)
    tokens: Part = field(default_factory=Part)
    running: int = 0
    permits: int = 0
    permits_elsewhere: int = 0
    num_servers: int = 1
    is_new: bool = True
    is_alone: bool = False

    def short_of(self, limits: Limits, needed: Amounts) -> str | None:
        """Return the first limit by which what is needed is not held; None if all is."""
        held = (self.requests.held, self.tokens.held, self.permits - self.running)
        for name, need, have in zip(RATES, needed.each, held, strict=True):
            if getattr(limits, name) is not None and need and have < need - _NEARLY:
                return name
        return None

    def take(self, limits: Limits, needed: Amounts, now: float) -> None:
        """Spend what a request needs, where it is limited."""
        for (limit, part), need in zip(self._rates(limits), needed.each[:2], strict=True):
            part.held -= 0 if limit is None else need
        self.running += int(needed.permits)
        self.used_at = now

    def is_low(self, limits: Limits) -> bool:
        """Return whether to ask for more in advance, to tell what is owed, or to give permits."""
        held = self.requests.held, self.tokens.held
        pieces = _piece(limits, RATES[0]), _piece(limits, RATES[1])
        is_low = any(2 * have < piece or have < 0 for have, piece in zip(held, pieces, strict=True))
        return is_low or self.permits > self.running + _piece(limits, RATES[2])

    @property
    def is_held(self) -> bool:
        """Return whether something is held that no request needs, or owed."""
        return bool(self.requests.held or self.tokens.held or self.permits > self.running)

    @property
    def is_empty(self) -> bool:
        """Return whether nothing would be lost with it."""
        return not (self.is_held or self.running)

    def ask(self, limits: Limits, needed: Amounts) -> Ask:
        """Return what to ask the registry, so that what is needed is held afterwards.

        Permits that are held for more requests than may come at once are given back with it.
        """
        self._rejoin()
        held = self.requests.held, max(0.0, self.tokens.held), self.permits - self.running
        short = [need - have for need, have in zip(needed.each, held, strict=True)]
        most = [lack + _piece(limits, name) for lack, name in zip(short, RATES, strict=True)]
        asked = Ask(
            needed=Amounts(*(max(0.0, lack) for lack in short)),
            most=Amounts(max(0.0, most[0]), max(0.0, most[1]), most[2]),
            owed_tokens=max(0.0, -self.tokens.held),
            permits=self.permits,
        )
        self.permits += int(min(0.0, most[2]))
        return asked

    def give_back(self) -> Ask:
        """Return what to tell the registry of a share that is not used; it holds no more of it."""
        self._rejoin()
        requests, tokens = self.requests, self.tokens
        idle = max(0.0, requests.held), max(0.0, tokens.held), max(0, self.permits - self.running)
        owed = max(0.0, -tokens.held)
        asked = Ask(
            most=Amounts(*(-each for each in idle)),
            owed_tokens=owed,
            permits=self.permits,
        )
        requests.held -= idle[0]
        tokens.held -= idle[1]
        self.permits -= int(idle[2])
        return asked

    def hear(self, asked: Ask, granted: Granted, now: float) -> None:
        """Enter what the registry granted; what was given back is held no more."""
        requests, tokens, permits = (max(0.0, amount) for amount in granted.amounts.each)
        self.requests.held += requests
        self.tokens.held += tokens + asked.owed_tokens
        self.permits += int(permits)
        self.requests.left, self.tokens.left = granted.left.requests, granted.left.tokens
        self.permits_elsewhere = granted.permits - self.permits
        self.num_servers = max(1, granted.num_servers)
        self.heard_at, self.is_new = now, False

    def _rejoin(self) -> None:
        """Forget what came by itself while the registry was away: others may have taken it."""
        if self.is_alone:
            self.requests.held = min(0.0, self.requests.held)
            self.tokens.held = min(0.0, self.tokens.held)
            self.is_alone = False

    def fill_alone(self, limits: Limits, now: float) -> None:
        """Fill while the registry is away: every server has an equal share, as known last."""
        for limit, part in self._rates(limits):
            most = (limit or 0) / self.num_servers
            gained = most if self.is_new else (now - self.heard_at) * most / _MINUTE_S
            part.held = max(part.held, min(most, part.held + gained))
        self.permits = math.ceil((limits.running_requests or 0) / self.num_servers)
        self.is_alone, self.is_new, self.heard_at = True, False, now

    def keep_within(self, limits: Limits) -> None:
        """Keep no more than limits allow that were lowered or removed."""
        for limit, part in self._rates(limits):
            part.held = 0.0 if limit is None else min(part.held, limit)
        self.permits = min(self.permits, limits.running_requests or 0)

    def standings(self, limits: Limits, now: float) -> tuple[Standing | None, Standing | None]:
        """Return how requests and tokens stand; None where there is no limit."""
        requests, tokens = (
            None if limit is None else self._standing(limit, part, now)
            for limit, part in self._rates(limits)
        )
        return requests, tokens

    def blocked_by(self, limits: Limits, needed: Amounts, now: float) -> str | None:
        """Return the first limit that lets through too little now, as far as this server knows."""
        each = zip(RATES, needed.each, strict=True)
        counted = (name for name, need in each if need and getattr(limits, name) is not None)
        return next((n for n in counted if self.wait_s(limits, n, needed, now) != 0), None)

    def wait_s(self, limits: Limits, name: str, needed: Amounts, now: float) -> float | None:
        """Return in about how many seconds a limit lets through what is needed; None for never.

        Args:
            limits: of the tenant.
            name: of the limit, one of `RATES`.
            needed: by a request.
            now: seconds.
        """
        limit = getattr(limits, name)
        need = needed.each[RATES.index(name)]
        if not limit or need > limit:
            return None
        if name == "running_requests":
            is_free = self.running + self.permits_elsewhere + need <= limit
            return 0.0 if is_free and not self.is_alone else 1.0
        _, part = self._rates(limits)[RATES.index(name)]
        return max(0.0, need - _NEARLY - self._level(limit, part, now)) * _MINUTE_S / limit

    def used(self, limits: Limits, name: str, now: float) -> int:
        """Return about how much of a limit is used, of `RATES`."""
        if name == "running_requests":
            return self.running + self.permits_elsewhere
        limit, part = self._rates(limits)[RATES.index(name)]
        return math.ceil((limit or 0) - self._level(limit or 0, part, now) - _NEARLY)

    def _standing(self, limit: int, part: Part, now: float) -> Standing:
        level = min(limit, self._level(limit, part, now))
        reset_s = (limit - level) * _MINUTE_S / limit if limit else _MINUTE_S
        return Standing(limit, max(0, math.floor(level + _NEARLY)), reset_s)

    def _level(self, limit: int, part: Part, now: float) -> float:
        """Return about how much may be spent now; below 0: so much is owed."""
        if self.is_alone:
            return part.held
        left = limit if part.left is None else part.left
        return part.held + min(limit, left + (now - self.heard_at) * limit / _MINUTE_S)

    def _rates(self, limits: Limits) -> tuple[tuple[int | None, Part], tuple[int | None, Part]]:
        return (limits.requests_per_minute, self.requests), (limits.tokens_per_minute, self.tokens)


def _piece(limits: Limits, name: str) -> int:
    """Return how much of a limit a server takes in advance."""
    return math.floor((getattr(limits, name) or 0) * _PIECE)
