"""Pages of other sites, which a server without API keys refuses.

A browser sends any page's requests to a server on its user's own machine or network. Two marks tell
them apart: a page names its site in `Origin`, and a page whose site's name was made to mean this
machine (DNS rebinding) has that name in `Host`. Programs send no Origin, and a Host of this server.
"""

from collections.abc import Callable, Collection
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.middleware.messages import header, send_error
from server.errors import ForbiddenOrigin
from server.hosts import is_address, is_loopback, is_this_machine

#: Asked by balancers under any name; they tell nothing and change nothing.
_ASKED_BY_ALL = frozenset({"/health", "/health/live", "/health/ready"})
_MAX_SHOWN = 100
_OR_KEYS = "or give the server API keys (OVERTONE_API_KEYS)"


class OtherSites:
    """Answers 403 to requests of other sites' pages.

    Args:
        app: the application inside.
        host: that the server listens on.
        allowed_hosts: other names of the server; `*` is any.
        origins: of pages that may use it, as `https://app.example`; `*` is any.
        is_open: whether requests need no key; where they do, nothing is refused here.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        allowed_hosts: Collection[str],
        origins: Collection[str],
        is_open: Callable[[], bool],
    ) -> None:
        self._app = app
        self._is_open = is_open
        host = host.lower()
        self._names = {"localhost", host, *(name.lower() for name in allowed_hosts)}
        self._any_host = "*" in allowed_hosts
        self._origins = {origin.lower() for origin in origins}
        self._is_local = is_this_machine(host)
        self._fault_of = lru_cache(256)(self._uncached_fault)  # callers are few and ask often

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403."""
        fault = None
        if scope["type"] == "http" and self._is_open():
            host, origin = (header(scope, n).decode("latin-1") for n in (b"host", b"origin"))
            fault = self._fault_of(host, origin, scope["path"] in _ASKED_BY_ALL)
        if fault is None:
            await self._app(scope, receive, send)
        else:
            await send_error(send, ForbiddenOrigin(fault))

    def _uncached_fault(self, host: str, origin: str, under_any_name: bool) -> str | None:
        """Return what is wrong with a request, and what to do."""
        if not under_any_name and not self._is_host(host):
            return (
                f"Host = {host[:_MAX_SHOWN]!r}: without API keys this server answers to its own "
                f"names only: add it with --allowed-hosts (OVERTONE_ALLOWED_HOSTS), {_OR_KEYS}"
            )
        if not self._is_origin(origin, host):
            return (
                f"Origin = {origin[:_MAX_SHOWN]!r}: without API keys this server is not for pages "
                f"of other sites: allow it with --allow-origins (OVERTONE_ALLOW_ORIGINS), "
                f"{_OR_KEYS}"
            )
        return None

    def _is_host(self, host: str) -> bool:
        """Return whether this is a name of the server; a program of HTTP/1.0 gives none."""
        name = _name_in(f"//{host}")
        if not host or self._any_host or self._is_own(name):
            return True
        # Beyond this machine the server has addresses and short names that it does not know. No
        # site can be called so: the public DNS has no names without a dot.
        return not self._is_local and name != "" and (is_address(name) or "." not in name)

    def _is_origin(self, origin: str, host: str) -> bool:
        """Return whether a page of this origin may use the server."""
        if not origin or "*" in self._origins or origin.lower() in self._origins:
            return True
        name = _name_in(origin)
        return name != "" and (self._is_own(name) or name == _name_in(f"//{host}"))

    def _is_own(self, name: str) -> bool:
        return name in self._names or name.endswith(".localhost") or is_loopback(name)


def _name_in(url: str) -> str:
    """Return the host in a URL, in small letters; empty if there is none."""
    try:
        return (urlsplit(url).hostname or "").removesuffix(".")
    except ValueError:
        return ""
