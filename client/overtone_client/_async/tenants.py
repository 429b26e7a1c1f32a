"""Limits and usage of tenants over REST."""

from collections.abc import Mapping

from .. import _tenant_calls as calls
from ..tenant_types import TenantLimits, TenantUsage
from .sender import AsyncSender


class AsyncTenants:
    """What tenants may ask and what they use; all but `usage()` needs the scope `admin`.

    Every method raises `OvertoneError`s only.
    """

    def __init__(self, sender: AsyncSender) -> None:
        self._sender = sender

    async def limits(self, tenant: str) -> TenantLimits:
        """A tenant's limits: those that were set for it, and those that hold."""
        return calls.parse_limits(await self._sender.send(calls.limits(tenant)))

    async def set_limits(self, tenant: str, limits: Mapping[str, int | str | None]) -> TenantLimits:
        """Set a tenant's own limits in place of those before, for all servers within a second.

        Args:
            tenant: need not be known.
            limits: by name, such as `tokens_per_minute`: a number, `unlimited`, or None for the
                server's default, as is what is missing.
        """
        return calls.parse_limits(await self._sender.send(calls.set_limits(tenant, limits)))

    async def usage(self, tenant: str | None = None) -> TenantUsage:
        """What a tenant uses of what it may; None: the caller's own."""
        return calls.parse_usage(await self._sender.send(calls.usage(tenant)))
