"""The Redis client: short timeouts, no retries, and a new connection at the next call."""

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from registry.errors import InvalidArgument

TIMEOUT_S = 2.0


def open_client(url: str) -> redis.Redis:
    """Return a client that answers bytes and connects when first used; the caller closes it.

    It never repeats a command by itself, because not every script may run twice. The protocol is
    fixed, so that replies have the same shape with every version of redis-py.

    Args:
        url: `redis://`, `rediss://` or `unix://`.

    Raises:
        InvalidArgument: the URL is of another kind or malformed. It is not repeated in the message,
            because it may hold a password.
    """
    try:
        return redis.Redis.from_url(
            url,
            protocol=2,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise InvalidArgument(
            "the registry's URL is not 'embedded', redis://HOST:PORT/DB, rediss://... or unix://..."
        ) from error


def patient(client: redis.Redis, timeout_s: float) -> redis.Redis:
    """Return a client of the same server for commands that take long; the caller closes it."""
    pool = client.connection_pool
    given = {**pool.connection_kwargs, "socket_timeout": timeout_s}
    own = redis.ConnectionPool(connection_class=pool.connection_class, **given)
    return redis.Redis.from_pool(own)
