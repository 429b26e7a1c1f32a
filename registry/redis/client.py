"""The Redis client: short timeouts, no retries, and a new connection at the next call."""

from collections.abc import Mapping
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException
from redis.retry import Retry
from redis.sentinel import Sentinel

from registry.redis.cluster import LazyCluster
from registry.redis.shapes import Shape, shape_of

TIMEOUT_S = 2.0
#: For all keys at once: 100,000 adapters take seconds.
PATIENT_S = 300.0
#: What a client raises when an exchange fails. A cluster's own faults are not `RedisError`s.
FAULTS = (redis.RedisError, RedisClusterException)
#: Of these, what says that nothing was reached.
UNREACHABLE = (redis.ConnectionError, redis.TimeoutError, RedisClusterException)


class EmbeddedClient(redis.Redis):
    """A client of the embedded server, which means by some answers what others do not."""


def open_client(
    url: str, timeout_s: float = TIMEOUT_S, kind: type[redis.Redis] = redis.Redis
) -> redis.Redis:
    """Return a client that answers bytes and connects when first used; the caller closes it.

    It never repeats a command by itself, because not every script may run twice. After a failover
    the next call goes to the new master.

    Args:
        url: as shapes.py has them.
        timeout_s: for one answer.
        kind: of a client of one server.

    Raises:
        InvalidArgument: the URL is of another kind or malformed, or an option is not known. It is
            not repeated in the message, because it may hold a password.
    """
    shape = shape_of(url)
    common: dict[str, Any] = {
        "protocol": 2,  # replies have the same shape with every version of redis-py
        "socket_timeout": timeout_s,
        "socket_connect_timeout": min(timeout_s, TIMEOUT_S),
        "retry": Retry(NoBackoff(), 0),
    }
    if shape.kind == "cluster":
        return cast(redis.Redis, LazyCluster(shape.hosts, shape.settings | common))
    if shape.kind == "sentinel":
        return _master(shape, common)
    return kind.from_url(url, **common)


def _master(shape: Shape, common: Mapping[str, Any]) -> redis.Redis:
    """Return a client of the service's master; each new connection asks the Sentinels for it."""
    sentinels = Sentinel(shape.hosts, sentinel_kwargs={**shape.sentinel_settings, **common})
    client: redis.Redis = sentinels.master_for(shape.service, **{**shape.settings, **common})
    return client
