"""Of which tenant a request is and what it may do, found by the key that it sends.

Two kinds of keys are taken: those of the setting (api_keys.py), which may do everything, and the
registry's (registry/access). A server without the first kind whose registry never had one of the
second asks for none.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from fastapi import Request

from registry import KeyMirror, KeyRecord, RegistryUnavailable, Scope
from registry.access.record import ADMIN, SCOPES, is_secret_of
from registry.access.secret import digest_of, id_in
from registry.common.spaces import OPERATORS, is_space
from server.api.console_files import console_names
from server.api_keys import key_of, read_keys
from server.errors import InsufficientScope, InvalidApiKey, InvalidRequest, NotReady

#: Paths that every caller may ask: they tell nothing and change nothing.
OPEN_PATHS = frozenset(
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
        *(f"/console/{name}" for name in console_names()),
    }
)
#: Paths of the metrics. Before the service is up they tell nothing of any tenant, and only there
#: can be read that a server cannot serve.
METRIC_PATHS = frozenset({"/metrics", "/metrics/load"})
#: Of a key that a caller behind a gateway, which shares the gateway's key, does not have.
_NOT_SHARED: frozenset[Scope] = frozenset({"metrics", ADMIN})
#: Unknown keys that are asked for at a time: a flood of wrong ones must not take all threads.
MAX_LOOKUPS = 64
_NUM_THREADS = 4
_MAX_TENANT_CHARS = 128
#: Header in which an operator names the tenant that it acts for, and what stands there for the
#: operators' own things on a server without keys.
ACTING_FOR = "X-Overtone-Tenant"
_NO_TENANT = "-"


@dataclass(frozen=True)
class Caller:
    """What a request counts for.

    Args:
        tenant: owns what the request makes; empty where no key is needed.
        scopes: what it may do.
        key: the id of its key, `environment:NAME` for one of the setting, None for none.
        space: of its own adapters' names: the operators' where no key of the registry is sent.
    """

    tenant: str
    scopes: tuple[Scope, ...]
    key: str | None
    space: str = OPERATORS

    @property
    def is_operator(self) -> bool:
        """Whether it may do everything, and know what the server does for all tenants."""
        return ADMIN in self.scopes

    def may(self, needed: Sequence[str]) -> bool:
        """Return whether it has one of these scopes."""
        return any(scope in self.scopes for scope in needed)

    def of_gateway(self, named: bytes) -> "Caller":
        """Return a caller that this one, a gateway, names: a tenant of its own, and no operator."""
        name = named[:_MAX_TENANT_CHARS].decode("latin-1")
        scopes = tuple(scope for scope in self.scopes if scope not in _NOT_SHARED)
        tenant = f"{self.tenant}/{name}"
        return replace(self, tenant=tenant, space=tenant, scopes=scopes)

    def acting_for(self, named: bytes) -> "Caller":
        """Return a caller that does with its own key what a tenant might do, with its things.

        Raises:
            InsufficientScope: it is no operator.
            InvalidRequest: no tenant is called so.
        """
        if not self.is_operator:
            raise InsufficientScope(f"{ACTING_FOR} needs a key with the scope `{ADMIN}`")
        tenant = named.decode("latin-1")
        if tenant == _NO_TENANT:
            return replace(self, tenant="", space=OPERATORS)
        if not is_space(tenant):
            raise InvalidRequest(
                f"{ACTING_FOR} = {tenant[:80]!r} is no tenant's name; {_NO_TENANT!r} stands for "
                "what is there without keys",
                ACTING_FOR,
            )
        return replace(self, tenant=tenant, space=tenant)


#: Of a request to an open path.
OPEN_CALLER = Caller("", (), None)
#: Of a request for metrics before it can be known whether a key is needed.
EARLY_CALLER = Caller("", ("metrics",), None)
#: Of any request where no key is needed.
ANY_CALLER = Caller("", SCOPES, None)


class Authentication:
    """Finds a request's caller; used on the event loop.

    Args:
        given: the keys of the setting.
        requires_keys: ask for one although there is none.
        mirror: returns the registry's keys; None until the service is up.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        given: Sequence[str],
        requires_keys: bool,
        mirror: Callable[[], KeyMirror | None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = read_keys(given)
        self._requires_keys = requires_keys or bool(self._keys)
        self._mirror = mirror
        self._clock = clock
        self._threads = ThreadPoolExecutor(_NUM_THREADS, "api-keys")
        self._asked: dict[str, asyncio.Future[KeyRecord | None]] = {}

    @property
    def is_open(self) -> bool:
        """Whether requests need no key, as far as is known: there is none, and there never was."""
        if self._requires_keys:
            return False
        mirror = self._mirror()
        return mirror is None or not mirror.has_any

    async def caller_of(self, sent: bytes | None) -> Caller:
        """Return the caller that sends this key; None for no key.

        Raises:
            InvalidApiKey: it is missing, wrong, revoked or expired.
            RegistryUnavailable: it cannot be looked up now.
            NotReady: likewise, before the service is up, and whether keys are needed at all.
        """
        own = None if sent is None else key_of(self._keys, sent)
        if own is not None:
            return Caller(own.tenant, SCOPES, f"environment:{own.tenant}")
        if self.is_open:
            if self._mirror() is None:
                raise _starting()
            return ANY_CALLER
        record = await self._registered(sent or b"")
        scopes = SCOPES if ADMIN in record.scopes else record.scopes
        return Caller(record.tenant, scopes, record.id, record.tenant)

    def close(self) -> None:
        """End the threads; keys that are not known are looked up no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _registered(self, sent: bytes) -> KeyRecord:
        """Return the registry's key that was sent, if it is valid."""
        id_ = id_in(sent)
        if id_ is None:
            raise _wrong()
        mirror = self._mirror()
        if mirror is None:
            raise _starting()
        record = mirror.known(id_) or await self._looked_up(mirror, id_)
        now = self._clock()
        if not is_secret_of(record, digest_of(sent), now) or record is None:
            raise _wrong()
        if record.is_expired(now):
            until = datetime.fromtimestamp(record.expires_at or now, UTC)
            raise InvalidApiKey(f"the API key has expired: it was valid until {until:%F %T} UTC")
        return record

    async def _looked_up(self, mirror: KeyMirror, id_: str) -> KeyRecord | None:
        """Ask the registry beside the event loop; once for all requests that wait for one key."""
        asked = self._asked.get(id_)
        if asked is None:
            if len(self._asked) >= MAX_LOOKUPS:
                raise RegistryUnavailable("too many unknown API keys come at once; try again")
            loop = asyncio.get_running_loop()
            asked = loop.run_in_executor(self._threads, mirror.look_up, id_)
            self._asked[id_] = asked
            asked.add_done_callback(lambda done: self._forget(id_, done))
        return await asyncio.shield(asked)

    def _forget(self, id_: str, done: "asyncio.Future[KeyRecord | None]") -> None:
        del self._asked[id_]
        if not done.cancelled():
            done.exception()  # it may be that no request waits for it any more


async def check_scope(request: Request) -> None:
    """Refuse a request whose key has none of the scopes that its route declares.

    A dependency of all routes: the only place where scopes are enforced. A route that declares none
    and is not open is for admins.

    Raises:
        InsufficientScope: the message names those that are needed and those that the key has.
    """
    if request.scope["path"] in OPEN_PATHS:
        return
    caller: Caller = request.state.caller
    needed = scopes_of(request.scope["route"])
    if not caller.may(needed):
        raise InsufficientScope(
            f"this needs a key with the scope {_listed(needed, ' or ')}; the key that was sent has "
            f"{_listed(caller.scopes, ', ') or 'none'}"
        )


def scopes_of(route: object) -> tuple[str, ...]:
    """Return the scopes of which a route needs one, as it declares them (describe.py)."""
    declared = getattr(route, "openapi_extra", None) or {}
    ways = declared.get("security", [])
    return tuple(scope for way in ways for scope in way["apiKey"]) or (ADMIN,)


def _listed(scopes: Sequence[str], between: str) -> str:
    return between.join(f"`{scope}`" for scope in scopes)


def _starting() -> NotReady:
    return NotReady("the server is starting and cannot look up API keys yet; try again in a moment")


def _wrong() -> InvalidApiKey:
    return InvalidApiKey("the API key is missing or wrong: send Authorization: Bearer KEY")
