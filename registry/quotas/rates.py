"""The rates of a tenant over all servers: parts of them are taken in advance, and given back.

A rate of N a minute is a bucket that holds N and refills evenly within a minute, so a tenant that
paused may send N at once. What is used without having been taken first, the tokens of an answer,
may bring it below zero; the next request then waits for longer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import redis

from registry.common.limits import Limits
from registry.redis import keys
from registry.redis.scripts import Observer, Scripts

#: A server that is silent for so long has no requests running any more.
KEPT_S = 15.0
_ONLY_READS = ""


@dataclass(frozen=True)
class Amounts:
    """Requests, tokens and permits to run."""

    requests: float = 0
    tokens: float = 0
    permits: float = 0

    @property
    def each(self) -> tuple[float, float, float]:
        """Return the three, in the order in which all that counts them has them."""
        return self.requests, self.tokens, self.permits


@dataclass(frozen=True)
class Ask:
    """What a server asks for one tenant.

    Args:
        needed: all of it, or nothing is granted.
        most: more of it, where there is so much; below 0: given back.
        owed_tokens: used without having been granted.
        permits: to run, that the server holds.
    """

    needed: Amounts = Amounts()
    most: Amounts = Amounts()
    owed_tokens: float = 0
    permits: int = 0


@dataclass(frozen=True)
class Granted:
    """What a server was granted for one tenant, and how much there is elsewhere.

    Args:
        is_enough: what was needed was granted.
        amounts: as asked for; below 0 where it was given back.
        left: of requests and tokens, in the buckets.
        permits: that all servers hold together.
        num_servers: that have lately asked for this tenant.
    """

    is_enough: bool
    amounts: Amounts
    left: Amounts
    permits: int
    num_servers: int


class Rates:
    """The buckets behind one Redis client; safe to use from many threads.

    Args:
        client: answers bytes and has socket timeouts.
        observer: called after every exchange: operation, seconds, and whether the server answered.
        clock: seconds; None is the registry's own, which all servers share.
    """

    def __init__(
        self,
        client: redis.Redis,
        observer: Observer | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._scripts = Scripts(client, observer)
        self._clock = clock

    def exchange(self, server: str, tenant: str, limits: Limits, ask: Ask) -> Granted:
        """Take and give back parts of a tenant's rates.

        Args:
            server: that asks; another one each time that a server is started.
            tenant: that is counted.
            limits: that hold for it.
            ask: what the server needs.

        Raises:
            RegistryUnavailable: the registry does not answer.
        """
        now = "" if self._clock is None else repr(self._clock())
        three = (limits.requests_per_minute, limits.tokens_per_minute, limits.running_requests)
        args: list[str] = [server, now, repr(KEPT_S), str(ask.permits)]
        args += ["" if limit is None else str(limit) for limit in three]
        args += [repr(amount) for amounts in (ask.needed, ask.most) for amount in amounts.each]
        enough, *told = self._scripts.run(
            "rates", [keys.rates(tenant)], [*args, repr(ask.owed_tokens)]
        )
        numbers = [float(text) for text in told]
        permits, num_servers = map(int, numbers[5:])
        granted, left = Amounts(*numbers[:3]), Amounts(*numbers[3:5])
        return Granted(bool(enough), granted, left, permits, num_servers)

    def state(self, tenant: str, limits: Limits) -> Granted:
        """Return how a tenant's rates stand, and change nothing.

        Raises:
            RegistryUnavailable: the registry does not answer.
        """
        return self.exchange(_ONLY_READS, tenant, limits, Ask())
