"""Admits requests by their tenant's rates: from what this server holds, else from the registry.

Tenants without limits cost one look into a dictionary. Of the others this server holds a share
(share.py), so most requests wait for nothing; one that is not covered waits for one exchange. While
the registry is away, every server lets its equal share through.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

from registry.adapters.directory import Directory, Following
from registry.common.limits import RATES, WORDS, Limits, account_of
from registry.errors import QuotaExceeded, RegistryUnavailable
from registry.quotas.mirror import LimitsMirror
from registry.quotas.rates import KEPT_S, Amounts, Ask, Rates
from server.errors import RateLimited
from server.rates.share import Share, Standing

_LOG = logging.getLogger("overtone")
#: How often what was spent is told, and looked whether a share is idle.
_TICK_S = 0.25
#: A share that was not used for so long is given back.
_IDLE_S = 1.0
#: The registry is not asked for so long after it did not answer.
_PAUSE_S = 1.0
_NUM_THREADS = 4
#: Other requests may take what an exchange brought for one.
_TRIES = 3
_REQUEST = Amounts(requests=1, permits=1)


@dataclass(eq=False)
class _Account:
    """A tenant that is limited, its share here, and what keeps exchanges apart."""

    tenant: str
    share: Share
    num_waiting: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Meter:
    """Counts what tenants ask of this server; used on one event loop but for `spend`.

    Args:
        mirror: the limits.
        rates: what all servers share.
        directory: knows whether the registry is away.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        mirror: LimitsMirror,
        rates: Rates,
        directory: Directory,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mirror, self._rates, self._directory = mirror, rates, directory
        self._clock = clock
        self._id = uuid4().hex
        self._accounts: dict[str, _Account] = {}
        self._spent: deque[tuple[str, int]] = deque()  # by other threads, not counted yet
        self._silent_until = -math.inf
        self._wanted = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._threads = ThreadPoolExecutor(_NUM_THREADS, "rates")

    async def begin(self, tenant: str) -> Callable[[], None]:
        """Count a request that begins; return what to call once it is over.

        Raises:
            RateLimited: the tenant has asked enough for now.
            QuotaExceeded: its limit lets nothing through.
        """
        limits = self._mirror.of(tenant)
        if not limits.has_rates:
            return _nothing
        account = await self._admit(tenant, limits, _REQUEST)

        def end() -> None:
            account.share.running -= 1
            account.share.used_at = self._clock()

        return end

    async def take_tokens(self, tenant: str, num_tokens: int) -> None:
        """Count the tokens of a request's prompts, before it is accepted.

        Raises:
            RateLimited: the tenant has used enough for now.
            QuotaExceeded: these are more than it may ever.
        """
        limits = self._mirror.of(tenant)
        if limits.tokens_per_minute is not None:
            await self._admit(tenant, limits, Amounts(tokens=num_tokens))

    def spend(self, tenant: str, num_tokens: int) -> None:
        """Count tokens that were made; from any thread."""
        if num_tokens and self._mirror.of(tenant).tokens_per_minute is not None:
            self._spent.append((account_of(tenant), num_tokens))

    def standings(self, tenant: str) -> tuple[Standing | None, Standing | None]:
        """Return how requests and tokens of a tenant stand; None where there is no limit."""
        limits = self._mirror.of(tenant)
        if not limits.has_rates:
            return None, None
        self._collect()
        account = self._accounts.get(account_of(tenant))
        share = account.share if account else self._new_share()
        return share.standings(limits, self._clock())

    def start(self) -> None:
        """Begin to keep shares, on the event loop that is running."""
        self._keeper = asyncio.create_task(self._keep_all())

    async def _keep_all(self) -> None:
        """Take in advance, tell what was spent, and give back what is idle; until cancelled."""
        while True:
            if not self._accounts:
                await self._wanted.wait()
            self._wanted.clear()
            try:
                for account in [*self._accounts.values()]:
                    await self._keep(account)
            except Exception:
                _LOG.exception("the rates of tenants could not be kept")
            await self._pause()

    async def close(self) -> None:
        """Give back all that is held, if the registry answers; nothing is admitted any more."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        for account in [*self._accounts.values()]:
            async with account.lock:
                limits = self._mirror.of(account.tenant)
                await self._exchange(account, limits, account.share.give_back)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _admit(self, tenant: str, limits: Limits, needed: Amounts) -> _Account:
        self._collect()
        account = self._account(account_of(tenant))
        share = account.share
        share.keep_within(limits)
        account.num_waiting += 1
        try:
            if share.short_of(limits, needed):
                await self._cover(account, limits, needed)
            share.take(limits, needed, self._clock())
        finally:
            account.num_waiting -= 1
        if share.is_low(limits):
            self._wanted.set()
        return account

    async def _cover(self, account: _Account, limits: Limits, needed: Amounts) -> None:
        """Hold what is needed: an exchange of another request may bring it, too.

        Raises:
            RateLimited, QuotaExceeded: there is too little.
        """
        share = account.share
        async with account.lock:
            for _ in range(_TRIES):
                if not share.short_of(limits, needed):
                    return
                now = self._clock()
                name = share.blocked_by(limits, needed, now)
                is_known = now < share.heard_at + _TICK_S
                if name and (is_known or share.wait_s(limits, name, needed, now) is None):
                    break
                await self._exchange(account, limits, partial(share.ask, limits, needed))
            if share.short_of(limits, needed):
                raise self._refusal(account, limits, needed)

    async def _exchange(self, account: _Account, limits: Limits, asking: Callable[[], Ask]) -> None:
        """Ask the registry for an account; its lock is held. Without an answer the share fills."""
        share = account.share
        if self._may_ask:
            asked = asking()
            call = partial(self._rates.exchange, self._id, account.tenant, limits, asked)
            try:
                granted = await asyncio.get_running_loop().run_in_executor(self._threads, call)
            except RegistryUnavailable:
                self._silent_until = self._clock() + _PAUSE_S
            else:
                share.hear(asked, granted, self._clock())
                return
        share.fill_alone(limits, self._clock())

    @property
    def _may_ask(self) -> bool:
        is_away = self._directory.following is Following.DOWN
        return not is_away and self._clock() >= self._silent_until

    async def _keep(self, account: _Account) -> None:
        self._collect()
        share, now = account.share, self._clock()
        limits = self._mirror.of(account.tenant)
        share.keep_within(limits)
        is_idle = now >= share.used_at + _IDLE_S
        async with account.lock:
            if is_idle and share.is_held:
                await self._exchange(account, limits, share.give_back)
            elif (share.is_low(limits) and not is_idle) or now >= share.heard_at + KEPT_S / 3:
                await self._exchange(account, limits, partial(share.ask, limits, Amounts()))
        if is_idle and share.is_empty and not account.num_waiting:
            self._accounts.pop(account.tenant, None)

    async def _pause(self) -> None:
        """Wait for the next tick, or until something is to be taken in advance."""
        try:
            async with asyncio.timeout(_TICK_S):
                await self._wanted.wait()
        except TimeoutError:
            pass

    def _collect(self) -> None:
        """Count what other threads have spent."""
        while self._spent:
            tenant, num_tokens = self._spent.popleft()
            self._account(tenant).share.tokens.held -= num_tokens

    def _account(self, tenant: str) -> _Account:
        account = self._accounts.get(tenant)
        if account is None:
            account = self._accounts[tenant] = _Account(tenant, self._new_share())
            self._wanted.set()
        return account

    def _new_share(self) -> Share:
        now = self._clock()
        return Share(heard_at=now, used_at=now)

    def _refusal(self, account: _Account, limits: Limits, needed: Amounts) -> Exception:
        """Return why what is needed is not let through: by which limit, and until when."""
        now, share = self._clock(), account.share
        name = share.blocked_by(limits, needed, now) or share.short_of(limits, needed) or RATES[0]
        counted = f" by tenant {account.tenant!r}" if account.tenant else ""
        used, need = share.used(limits, name, now), int(needed.each[RATES.index(name)])
        told = f"{used} of {getattr(limits, name)} {WORDS[name]} are used{counted}, and this needs"
        wait_s = share.wait_s(limits, name, needed, now)
        if wait_s is None:
            return QuotaExceeded(
                f"{told} {need}, which is never let through: ask for a higher limit"
            )
        seconds = max(1, math.ceil(wait_s))
        message = f"{told} {need} more; try again in {seconds} s"
        return RateLimited(message, retry_after_s=seconds)


def _nothing() -> None:
    """End a request that was not counted."""
