"""API keys, and the caller that a request counts for."""

from starlette.types import ASGIApp, Receive, Scope, Send

from registry import RegistryUnavailable
from server.api.callers import (
    ACTING_FOR,
    EARLY_CALLER,
    METRIC_PATHS,
    OPEN_CALLER,
    OPEN_PATHS,
    Authentication,
    Caller,
)
from server.api.middleware.messages import header, send_error
from server.errors import InsufficientScope, InvalidApiKey, InvalidRequest, NotReady

_REFUSALS = (InvalidApiKey, InsufficientScope, InvalidRequest, NotReady, RegistryUnavailable)
_ACTING_FOR = ACTING_FOR.lower().encode()


class ApiKeys:
    """Finds the caller of every request, and refuses those without a valid key.

    A gateway with one key for many tenants may name the tenant in the header `tenant_header`;
    without that setting no such header is read. An operator names the tenant that it acts for.
    """

    def __init__(
        self, app: ASGIApp, authentication: Authentication, tenant_header: str | None = None
    ) -> None:
        self._app = app
        self._authentication = authentication
        self._tenant_header = (tenant_header or "").lower().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401, 403, or 503 where a key cannot be looked up."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            caller = await self._caller(scope)
        except _REFUSALS as error:
            await send_error(send, error)
            return
        scope.setdefault("state", {}).update(caller=caller, tenant=caller.tenant)
        await self._app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller:
        if scope["path"] in OPEN_PATHS:
            return OPEN_CALLER
        sent = _key_in(header(scope, b"authorization"))
        try:
            caller = await self._authentication.caller_of(sent)
        except NotReady:
            if scope["path"] not in METRIC_PATHS:
                raise
            return EARLY_CALLER
        named = header(scope, self._tenant_header) if self._tenant_header else b""
        caller = caller.of_gateway(named) if named else caller
        asked = header(scope, _ACTING_FOR)
        return caller.acting_for(asked) if asked else caller


def _key_in(header: bytes) -> bytes | None:
    scheme, _, key = header.partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else None
