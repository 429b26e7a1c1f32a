"""How a registry's Redis is run, read from its URL: one server, behind Sentinels, or a cluster.

    redis[s]://[USER:PASSWORD@]HOST[:6379][/DB]                             one server
    unix://[USER:PASSWORD@]/PATH[?db=DB]                                    one server
    redis[s]+sentinel://[USER:PASSWORD@]HOST[:26379],HOST.../SERVICE[/DB]   the master of a service
    redis[s]+cluster://[USER:PASSWORD@]HOST[:6379],HOST...                  a cluster

Behind `?` come redis-py's options of a connection, such as `ssl_ca_certs=FILE`. Sentinels take the
same of TLS, and a user and a password of their own: `sentinel_username`, `sentinel_password`.
"""

from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.connection import Connection, SSLConnection, parse_url

from registry.errors import InvalidArgument

Kind = Literal["single", "sentinel", "cluster"]
FORMS = (
    "'embedded', redis://HOST:PORT/DB, unix:///PATH, redis+sentinel://HOST,HOST/SERVICE or "
    "redis+cluster://HOST,HOST, with rediss for TLS"
)
_PORTS = {"sentinel": 26379, "cluster": 6379}
_OF_SENTINELS = "sentinel_"
#: Options of a pool, which a connection does not take.
_OF_POOLS = ("max_connections", "timeout")
_UNKNOWN = "AbstractConnection.__init__() got an unexpected keyword argument"


@dataclass(frozen=True)
class Shape:
    """One registry's Redis.

    Args:
        kind: how it is run.
        hosts: (host, port) of the Sentinels, or of some of the cluster's nodes; empty for one
            server.
        service: the name that the Sentinels have for the master.
        settings: what redis-py's connections to the data take; `ssl` says whether they use TLS.
        sentinel_settings: what those to the Sentinels take.
    """

    kind: Kind
    hosts: tuple[tuple[str, int], ...]
    service: str
    settings: dict[str, Any]
    sentinel_settings: dict[str, Any]


def shape_of(url: str) -> Shape:
    """Return how the Redis at `url` is run; nothing is connected.

    Raises:
        InvalidArgument: the URL is malformed or has an option that is not known. It is not repeated
            in the message, because it may hold a password.
    """
    try:
        parts = urlsplit(url)
        scheme, _, kind = parts.scheme.partition("+")
        if not kind:
            return Shape("single", (), "", _checked(parse_url(url)), {})
        port = _PORTS[kind]
        user, at, places = parts.netloc.rpartition("@")
        hosts = tuple(_host(place, port) for place in places.split(","))
        path = parts.path.strip("/").split("/")
        service = path.pop(0) if kind == "sentinel" else ""
        one = (scheme, f"{user}{at}host", "/".join(["", *path]), parts.query, "")
        settings = parse_url(urlunsplit(one))
    except (ValueError, KeyError) as error:
        raise InvalidArgument(f"the registry's URL is not {FORMS}") from error
    return _of_several("sentinel" if kind == "sentinel" else "cluster", hosts, service, settings)


def _of_several(
    kind: Kind, hosts: tuple[tuple[str, int], ...], service: str, given: dict[str, Any]
) -> Shape:
    if kind == "sentinel" and not service:
        raise InvalidArgument(
            "the registry's URL names Sentinels and no service: "
            "redis+sentinel://HOST,HOST/SERVICE, with the name that `sentinel monitor` has"
        )
    if kind == "cluster" and given.pop("db", 0):
        raise InvalidArgument("a Redis cluster has no numbered databases: leave /DB out of the URL")
    own = {name: given.pop(name) for name in [*given] if name.startswith(_OF_SENTINELS)}
    settings = _checked({name: value for name, value in given.items() if name != "host"})
    secured = {name: value for name, value in settings.items() if name.startswith("ssl")}
    sentinels = {name.removeprefix(_OF_SENTINELS): value for name, value in own.items()}
    return Shape(kind, hosts, service, settings, _checked(sentinels) | secured)


def _host(place: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{place}")
    if not parts.hostname:
        raise ValueError("a host is missing")
    return parts.hostname, parts.port or port


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    """Return a connection's settings, with its class as `ssl`, if it takes them all."""
    settings = dict(given)
    kind = settings.pop("connection_class", Connection)
    try:
        kind(**{name: value for name, value in settings.items() if name not in _OF_POOLS})
    except (TypeError, redis.RedisError) as error:
        why = str(error).replace(_UNKNOWN, "there is no")
        raise InvalidArgument(f"the registry's URL has a wrong option: {why}") from error
    return settings | ({"ssl": True} if issubclass(kind, SSLConnection) else {})
