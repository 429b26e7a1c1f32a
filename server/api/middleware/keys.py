"""API keys, and the tenant that a request counts for."""

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.middleware.messages import header, send_error
from server.api_keys import read_keys, tenant_of
from server.errors import InvalidApiKey

_OPEN_PATHS = frozenset(
    {
        "/",
        "/health",
        "/health/live",
        "/health/ready",
        "/openapi.json",
        "/docs",
        "/docs/start.js",
        "/docs/swagger-ui-bundle.js",
        "/docs/swagger-ui.css",
    }
)
_MAX_TENANT_CHARS = 128


class ApiKeys:
    """Requires a key on every path but health checks and pages, if the server has keys.

    The key names the tenant (api_keys.py). A gateway with one key for many tenants may name the
    tenant in the header `tenant_header`; without that setting no header is read.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], tenant_header: str | None = None) -> None:
        self._app = app
        self._keys = read_keys(keys)
        self._tenant_header = (tenant_header or "").lower().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        tenant = self._tenant(scope)
        if tenant is None:
            error = InvalidApiKey("the API key is missing or wrong: send Authorization: Bearer KEY")
            await send_error(send, error)
            return
        scope.setdefault("state", {})["tenant"] = self._named(scope, tenant)
        await self._app(scope, receive, send)

    def _tenant(self, scope: Scope) -> str | None:
        """Return the key's tenant, the empty name where no key is needed, None for a wrong key."""
        key = self._key_of(header(scope, b"authorization"))
        found = None if key is None else tenant_of(self._keys, key)
        needs_none = not self._keys or scope["path"] in _OPEN_PATHS
        return "" if found is None and needs_none else found

    def _named(self, scope: Scope, own: str) -> str:
        """Return the tenant that the request counts for."""
        named = header(scope, self._tenant_header) if self._tenant_header else b""
        return f"{own}/{named[:_MAX_TENANT_CHARS].decode('latin-1')}" if named else own

    @staticmethod
    def _key_of(header: bytes) -> bytes | None:
        scheme, _, key = header.partition(b" ")
        return key.strip() if scheme.lower() == b"bearer" else None
