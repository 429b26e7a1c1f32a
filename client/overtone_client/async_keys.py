"""API keys over REST, for asyncio programs; keys.py has the methods described."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import httpx2

from . import _key_calls as calls
from ._requests import Call, Walk, walk
from ._responses import parse_items
from .key_types import ApiKey


class AsyncKeys:
    """The same as `Keys`, method for method.

    Args:
        send: sends a call and returns the whole answer.
    """

    def __init__(self, send: Callable[[Call], Awaitable[httpx2.Response]]) -> None:
        self._send = send

    async def create(
        self,
        tenant: str,
        scopes: Sequence[str],
        *,
        label: str | None = None,
        expires_in_s: float | None = None,
    ) -> ApiKey:
        call = calls.create(tenant, scopes, label, expires_in_s)
        return calls.parse_with_secret(await self._send(call))

    async def list(
        self, *, limit: int | None = None, tenant: str | None = None
    ) -> AsyncIterator[ApiKey]:
        left: Walk | None = walk(calls.KEYS, limit)
        while left:
            answer = await self._send(calls.of_tenant(left, tenant))
            found, body = parse_items(answer, calls.to_key)
            for one in found:
                yield one
            left = left.following(body)

    async def get(self, id: str) -> ApiKey:
        return calls.parse(await self._send(Call("GET", calls.path(id))))

    async def rotate(self, id: str, *, grace_s: float = 0) -> ApiKey:
        return calls.parse_with_secret(await self._send(calls.rotate(id, grace_s)))

    async def revoke(self, id: str) -> ApiKey:
        return calls.parse(await self._send(Call("DELETE", calls.path(id))))
